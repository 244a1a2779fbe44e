//! Rows of the store as words of `web`: names, permissions, what the provider said.

use crate::{
    domain::{
        ScopeSet,
        connector::{Connector, ConnectorId, ScopeKind},
        grant::{Grant, GrantState},
    },
    flows::Deps,
    store::{self, UserRow},
    web::{
        Shown, When,
        parts::{GrantStatus, Permission, PermissionKind, Permissions, UpstreamResult},
    },
};

/// What a person is called where the address stands beside it.
pub(super) fn short_name(user: &UserRow) -> Shown {
    let display = user.display();
    let local = user
        .email
        .as_deref()
        .and_then(|email| email.rsplit_once('@'))
        .map(|(local, _)| local)
        .filter(|local| !local.is_empty());
    Shown::new(local.unwrap_or(&display))
}

/// The name of a connector; its id if it is no longer there.
pub(super) fn connector_name(deps: &Deps, id: &ConnectorId) -> Shown {
    let name = deps.catalogue.get(id).map(|connector| connector.name.as_str());
    Shown::new(name.unwrap_or(id.as_str()))
}

/// What people read of the account.
pub(super) fn account(grant: &Grant) -> Shown {
    match &grant.account.tenant {
        Some(tenant) if *tenant != grant.account.label => {
            Shown::new(&format!("{} ({tenant})", grant.account.label))
        }
        _ => Shown::new(&grant.account.label),
    }
}

/// Scopes in plain words. One the connector does not know counts as sensitive.
pub(super) fn permissions(connector: Option<&Connector>, scopes: &ScopeSet) -> Permissions {
    let permission = |scope: &str| {
        let info = connector.and_then(|connector| connector.scope(scope));
        match info {
            Some(info) => Permission {
                kind: match info.kind {
                    ScopeKind::Read => PermissionKind::Read,
                    ScopeKind::Act => PermissionKind::Act,
                    ScopeKind::Sensitive => PermissionKind::Sensitive,
                },
                words: Shown::new(&info.title),
                scope: Some(Shown::new(scope)),
            },
            None => Permission {
                kind: PermissionKind::Sensitive,
                words: Shown::new("Something this connector has no words for"),
                scope: Some(Shown::new(scope)),
            },
        }
    };
    Permissions(scopes.iter().map(permission).collect())
}

/// Where a grant stands.
pub(super) fn status(grant: &Grant, upstream: Option<store::UpstreamResult>, deps: &Deps) -> GrantStatus {
    let now = deps.clock.now();
    match grant.state {
        GrantState::Active => GrantStatus::Active,
        GrantState::NeedsReconnect { reason } => GrantStatus::NeedsReconnect(reason),
        GrantState::Quarantined { until } => GrantStatus::Quarantined {
            until: When::new(until, now),
        },
        GrantState::Revoked { at } => GrantStatus::Revoked {
            at: When::new(at, now),
            upstream: upstream_result(upstream.unwrap_or(store::UpstreamResult::Pending)),
        },
    }
}

/// What the provider said.
pub(super) fn upstream_result(result: store::UpstreamResult) -> UpstreamResult {
    match result {
        store::UpstreamResult::Pending => UpstreamResult::Pending,
        store::UpstreamResult::Revoked => UpstreamResult::Revoked,
        store::UpstreamResult::Unsupported => UpstreamResult::Unsupported,
        store::UpstreamResult::Unconfirmed => UpstreamResult::Unconfirmed,
    }
}
