//! Making a link, and spending it on the way to the provider.

use crate::{
    connectors::oauth::{self, Authorization},
    crypto::{AadParts, lookup, random},
    domain::{
        AgentId, ConnectSessionId, GrantId, OrgId, ScopeSet, ServiceId, UserId,
        connector::ConnectorId,
        grant::GrantState,
        secret::{CodeVerifier, LinkToken},
    },
    flows::{ConnectLink, Deps, Refusal},
    release::seal,
    store::{ConnectRow, ConnectStatus},
};

use super::{ConnectFailure, LINK_LIFE, Opened, Visitor, all_scopes, knows, open, rule, unexpired};

/// What a new session is for.
#[derive(Debug)]
pub struct Ask {
    /// For whom.
    pub user: UserId,
    /// At which connector.
    pub connector: ConnectorId,
    /// What to ask; `None`: what the connector's typed actions need.
    pub scopes: Option<ScopeSet>,
    /// The person's own name for the grant.
    pub label: Option<String>,
    /// The grant it renews.
    pub reconnect: Option<GrantId>,
    /// Where the browser goes back to; must be registered for the service.
    pub return_url: Option<String>,
    /// The agent that asks, if one does.
    pub agent: Option<AgentId>,
    /// The host application that asks, if one does.
    pub service: Option<ServiceId>,
}

impl Ask {
    /// A person asks by themselves, for what the connector's typed actions need.
    #[must_use]
    pub fn new(user: UserId, connector: ConnectorId) -> Self {
        Self {
            user,
            connector,
            scopes: None,
            label: None,
            reconnect: None,
            return_url: None,
            agent: None,
            service: None,
        }
    }
}

/// Makes a connect session and its link.
///
/// # Errors
/// When person, connector or grant do not fit together, or the caller may not act for that person.
pub async fn create(deps: &Deps, org: OrgId, ask: Ask) -> Result<ConnectLink, Refusal> {
    let connector = deps
        .catalogue
        .get(&ask.connector)
        .ok_or_else(|| Refusal::invalid("/connector", "there is no such connector"))?;
    let known = all_scopes(connector);
    if let Some(unknown) = ask
        .scopes
        .iter()
        .flat_map(ScopeSet::iter)
        .find(|scope| !knows(connector, scope))
    {
        return Err(Refusal::invalid(
            "/scopes",
            format!("the connector has no scope {unknown}"),
        ));
    }
    let token = random::link_token(&*deps.random)?;
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let user = tx.user(org, ask.user).await?.ok_or(Refusal::NotFound)?;
            let rules = tx
                .connector_rules(org)
                .await?
                .remove(&ask.connector)
                .ok_or_else(|| {
                    Refusal::invalid("/connector", "the organisation has no client at this connector")
                })?;
            let scopes = rule::to_ask(&rules, connector, &known, ask.scopes.as_ref())?;
            // Host-managed persons are connected by their own service key and by nobody else's page alone.
            let service = ask.service.or(user.managed_by);
            if user.managed_by != service {
                return Err(Refusal::NotFound);
            }
            check_return_url(&mut tx, org, service, ask.return_url.as_deref()).await?;
            if let Some(reconnect) = ask.reconnect {
                let grant = tx.grant(org, reconnect).await?.ok_or(Refusal::NotFound)?;
                if grant.user != ask.user || grant.connector != ask.connector {
                    return Err(Refusal::NotFound);
                }
                if let GrantState::Revoked { at } = grant.state {
                    return Err(Refusal::Revoked { grant: reconnect, at });
                }
            }
            let now = tx.now();
            let epoch = tx.epoch(org).await?.ok_or(Refusal::NotFound)?;
            let row = ConnectRow {
                org,
                id: ConnectSessionId::new(now, &*deps.random)?,
                link_hash: deps.link_hash(&token)?,
                user: ask.user,
                connector: ask.connector.clone(),
                scopes,
                label: ask.label.clone(),
                agent: ask.agent,
                service,
                return_url: ask.return_url.clone(),
                reconnect: ask.reconnect,
                status: ConnectStatus::Pending,
                failure: None,
                made_epoch: epoch.counter,
                created_at: now,
                expires_at: now + LINK_LIFE,
                revoked: false,
                state_hash: None,
                browser_hash: None,
                verifier: None,
                tokens: None,
                account: None,
                granted: None,
                grant: None,
                code_hash: None,
                code_expires: None,
            };
            tx.insert_connect(&row).await?;
            tx.commit().await?;
            let url = deps.link_url("connect", &token);
            Ok(ConnectLink {
                session: row.id,
                url,
                expires_at: row.expires_at,
            })
        })
        .await
}

async fn check_return_url(
    tx: &mut crate::store::Tx,
    org: OrgId,
    service: Option<ServiceId>,
    return_url: Option<&str>,
) -> Result<(), Refusal> {
    match (service, return_url) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Refusal::invalid(
            "/return_url",
            "only host applications have return addresses",
        )),
        (Some(_), None) => Ok(()),
        (Some(service), Some(url)) => {
            let services = tx.services(org).await?;
            let registered = services
                .iter()
                .any(|known| known.id == service && known.return_urls.iter().any(|known| known == url));
            // Exactly one registered for the key (protocol §2): no prefix, no pattern.
            if registered {
                Ok(())
            } else {
                Err(Refusal::invalid("/return_url", "not registered for this key"))
            }
        }
    }
}

/// Opens the landing page of a link that can still be spent; looking does not spend it.
///
/// # Errors
/// When the link is used, expired or somebody else's.
pub async fn look<'a>(
    deps: &'a Deps,
    token: &LinkToken,
    visitor: Visitor,
) -> Result<Opened<'a>, ConnectFailure> {
    let opened = open(deps, token, visitor).await?;
    let session = &opened.session;
    let swept = session.failure.as_deref() == Some(ConnectFailure::Expired.code());
    if session.status != ConnectStatus::Pending && !swept {
        return Err(ConnectFailure::Used);
    }
    unexpired(session, deps.clock.now())?;
    Ok(opened)
}

/// Spends the link: the person goes on to the provider. Returns the secret of the binding cookie.
///
/// # Errors
/// When the link is used, expired or somebody else's.
pub async fn go(deps: &Deps, token: &LinkToken, visitor: Visitor) -> Result<LinkToken, ConnectFailure> {
    let mut session = look(deps, token, visitor).await?.session;
    if session.status != ConnectStatus::Pending {
        return Err(ConnectFailure::Used);
    }
    let key = deps.org_key(session.org).await?;
    let cookie = random::link_token(&*deps.random).map_err(Refusal::from)?;
    // RFC 7636 §4.1: 43 characters, 256 bits.
    let verifier = random::link_token(&*deps.random).map_err(Refusal::from)?;
    let verifier = CodeVerifier::new(lookup::show_link(&verifier));
    session.state_hash = Some(deps.state_hash(&deps.state_of(token)?)?);
    session.browser_hash = Some(deps.browser_hash(&cookie)?);
    let row = session.id.to_string();
    let sealed = seal::verifier(&key, &place(&session, &row, VERIFIER), &verifier).map_err(Refusal::from)?;
    session.verifier = Some(sealed);
    session.status = ConnectStatus::Spent;
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(session.org).await?;
            if !tx.move_connect(ConnectStatus::Pending, &session).await? {
                return Err(ConnectFailure::Used);
            }
            Ok::<_, ConnectFailure>(tx.commit().await?)
        })
        .await?;
    Ok(cookie)
}

/// Where the provider asks the person.
///
/// # Errors
/// When the session has not been begun or is over.
pub async fn provider_url(
    deps: &Deps,
    token: &LinkToken,
    visitor: Visitor,
) -> Result<String, ConnectFailure> {
    let opened = open(deps, token, visitor).await?;
    let session = &opened.session;
    unexpired(session, deps.clock.now())?;
    if session.status != ConnectStatus::Spent {
        return Err(ConnectFailure::Used);
    }
    let verifier = open_verifier(deps, session).await?;
    let mut tx = deps.store.read(session.org).await?;
    let client = tx
        .connector_client(session.org, &session.connector)
        .await?
        .ok_or(ConnectFailure::NotConfigured)?;
    drop(tx);
    let request = Authorization {
        client_id: &client.client_id,
        redirect_uri: &deps.redirect_uri(&session.connector),
        state: &deps.state_of(token)?,
        verifier: &verifier,
        scopes: &session.scopes,
        actor: oauth::actor(opened.connector, None).map_err(|_| ConnectFailure::NotConfigured)?,
    };
    let url = oauth::authorize_url(opened.connector, &request).map_err(|_| ConnectFailure::NotConfigured)?;
    Ok(url.into())
}

pub(super) async fn open_verifier(deps: &Deps, session: &ConnectRow) -> Result<CodeVerifier, ConnectFailure> {
    let sealed = session.verifier.as_ref().ok_or(ConnectFailure::Used)?;
    let key = deps.key_of(session.org, sealed.odk).await?;
    let row = session.id.to_string();
    let plain = key
        .open(&place(session, &row, VERIFIER), sealed)
        .map_err(Refusal::from)?;
    let text = std::str::from_utf8(&plain).map_err(|_| Refusal::KeyUnavailable)?;
    Ok(CodeVerifier::new(text.to_owned()))
}

/// Where a session's own secrets live: the PKCE verifier, and the tokens until the person confirms.
pub(super) fn place<'a>(session: &'a ConnectRow, row: &'a str, kind: &'a str) -> AadParts<'a> {
    AadParts {
        org: Some(session.org),
        user: Some(session.user),
        connector: Some(&session.connector),
        account: "",
        row,
        kind,
        binding: None,
        generation: 0,
    }
}

const VERIFIER: &str = "code_verifier";
