//! The org's rules about a connector, as they stand when something is asked for and again when it is kept.

use crate::{
    domain::{
        ScopeSet,
        connector::Connector,
        grant::Account,
        rules::{ConnectorRules, always},
    },
    flows::Refusal,
    store::{ConnectRow, Tx},
};

use super::ConnectFailure;

/// What the org lays down about the connector of a session.
///
/// # Errors
/// When the org has no client there, or the database is unavailable.
pub(super) async fn of(tx: &mut Tx, session: &ConnectRow) -> Result<ConnectorRules, ConnectFailure> {
    let mut rules = tx.connector_rules(session.org).await?;
    rules
        .remove(&session.connector)
        .ok_or(ConnectFailure::NotConfigured)
}

/// The scopes to ask for: those asked for if the org allows them all, else what it allows of the usual ones.
///
/// # Errors
/// When the org does not allow one that was asked for, or allows nothing of it.
pub(super) fn to_ask(
    rules: &ConnectorRules,
    connector: &Connector,
    usual: &ScopeSet,
    asked: Option<&ScopeSet>,
) -> Result<ScopeSet, Refusal> {
    let always = always(connector);
    let Some(asked) = asked else {
        let left = usual.difference(&rules.above(connector, usual));
        // RFC 6749 §3.3: a request that names no scope is answered with the provider's own idea of one.
        let nothing = left.is_subset(&always) && !usual.is_subset(&always);
        if nothing || !rules.allow_connecting() {
            return Err(Refusal::invalid(
                "/connector",
                "the organisation allows no scope of this connector",
            ));
        }
        return Ok(left);
    };
    match rules.above(connector, asked).iter().next() {
        Some(above) => Err(Refusal::invalid(
            "/scopes",
            format!("the organisation does not allow the scope {above}"),
        )),
        None => Ok(asked.union(&always)),
    }
}

/// Whether this account may be connected.
///
/// # Errors
/// When the org's rule does not admit it.
pub(super) fn admits(rules: &ConnectorRules, account: &Account) -> Result<(), ConnectFailure> {
    if rules.accounts.admits(account) {
        Ok(())
    } else {
        Err(ConnectFailure::AccountNotAllowed)
    }
}

/// Whether what was granted is still under the org's ceiling: it may have come down since it was asked for.
///
/// # Errors
/// When it is not.
pub(super) fn allows(
    rules: &ConnectorRules,
    connector: &Connector,
    granted: &ScopeSet,
) -> Result<(), ConnectFailure> {
    if rules.allow(connector, granted) {
        Ok(())
    } else {
        Err(ConnectFailure::ScopesNotAllowed)
    }
}
