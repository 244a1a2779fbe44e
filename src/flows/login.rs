//! Logging in: one-time links and browser sessions of persons Postern manages.

use std::{fmt, time::Duration};

use crate::{
    crypto::{lookup, random},
    domain::{
        OrgId, Time, UserId,
        entry::{EntryDraft, EntryType},
        secret::LinkToken,
    },
    store::{Keyed, LoginLinkRow, OrgRow, Tx, UserRow},
};

use super::{Deps, Refusal, record};

/// A link as handed out once. SECURITY: it signs in whoever has it, so `Debug` leaves it out.
pub struct LoginLink {
    /// The link.
    pub url: String,
    /// When it ends.
    pub expires_at: Time,
}

impl fmt::Debug for LoginLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginLink")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What a usable link offers.
#[derive(Debug)]
pub struct Offered {
    /// In which org.
    pub org: OrgRow,
    /// To log in as whom.
    pub user: UserRow,
    /// Until when.
    pub expires_at: Time,
}

/// Makes a login link for a person; the person sees the entry.
///
/// # Errors
/// When there is no such person here, or a host application manages them.
pub async fn make_link(deps: &Deps, org: OrgId, user: UserId, by: String) -> Result<LoginLink, Refusal> {
    let token = random::link_token(&*deps.random)?;
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let person = tx.user(org, user).await?.ok_or(Refusal::NotFound)?;
            if person.managed_by.is_some() {
                return Err(Refusal::NotFound);
            }
            let expires_at = insert_link(deps, &mut tx, org, user, &token, &by).await?;
            tx.commit().await?;
            Ok(LoginLink {
                url: deps.link_url("login", &token),
                expires_at,
            })
        })
        .await
}

/// Writes the row and the entry of a link whose token was made before; returns when it ends.
pub(super) async fn insert_link(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    user: UserId,
    token: &LinkToken,
    by: &str,
) -> Result<Time, Refusal> {
    let expires_at = tx.now() + LINK_LIFE;
    tx.insert_login_link(&deps.lookup.link("login", token)?, org, user, expires_at)
        .await?;
    let draft = EntryDraft {
        user: Some(user),
        on_behalf: vec![by.to_owned()],
        outcome: Some("login_link".to_owned()),
        ..EntryDraft::default()
    };
    tx.append_entry(org, record::open(deps, EntryType::Session, draft)?)
        .await?;
    Ok(expires_at)
}

/// For whom a link is, while it can be used; looking does not spend it.
///
/// # Errors
/// When the link is unknown, used or expired.
pub async fn look(deps: &Deps, token: &LinkToken) -> Result<Offered, Refusal> {
    let (mut tx, link) = find(deps, &deps.lookup.link("login", token)?).await?;
    Ok(Offered {
        org: tx.org(link.org).await?.ok_or(Refusal::NotFound)?,
        user: tx.user(link.org, link.user).await?.ok_or(Refusal::NotFound)?,
        expires_at: link.expires_at,
    })
}

/// Spends a link and begins a session under a fresh id.
///
/// # Errors
/// When the link is unknown, used or expired.
pub async fn enter(deps: &Deps, token: &LinkToken) -> Result<LinkToken, Refusal> {
    let hash = deps.lookup.link("login", token)?;
    let session = random::link_token(&*deps.random)?;
    let (tx, link) = find(deps, &hash).await?;
    drop(tx);
    let (org, user) = (link.org, link.user);
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            if !tx.spend_login_link(org, &hash).await? {
                return Err(Refusal::NotFound);
            }
            let draft = EntryDraft {
                user: Some(user),
                outcome: Some("login".to_owned()),
                ..EntryDraft::default()
            };
            let entry = record::open(deps, EntryType::Session, draft)?;
            let expires_at = tx.now() + SESSION_LIFE;
            tx.insert_session(&deps.lookup.session(&session)?, org, user, expires_at)
                .await?;
            tx.append_entry(org, entry).await?;
            Ok::<_, Refusal>(tx.commit().await?)
        })
        .await?;
    Ok(session)
}

/// The link with this keyed hash, in a snapshot of its org.
async fn find(deps: &Deps, hash: &[u8; 32]) -> Result<(Tx, LoginLinkRow), Refusal> {
    let found = deps.store.find(Keyed::LoginLink(hash)).await?;
    let (org, mut tx) = found.ok_or(Refusal::NotFound)?;
    let link = tx.login_link(org, hash).await?.ok_or(Refusal::NotFound)?;
    Ok((tx, link))
}

/// Whose session a cookie is.
///
/// # Errors
/// When the database is unavailable.
pub async fn who(deps: &Deps, session: &LinkToken) -> Result<Option<(OrgRow, UserRow)>, Refusal> {
    let hash = deps.lookup.session(session)?;
    let Some((org, mut tx)) = deps.store.find(Keyed::Session(&hash)).await? else {
        return Ok(None);
    };
    let Some(row) = tx.session(org, &hash).await? else {
        return Ok(None);
    };
    let (Some(org), Some(user)) = (tx.org(row.org).await?, tx.user(row.org, row.user).await?) else {
        return Ok(None);
    };
    let before = tx.now() - SEEN_EVERY;
    drop(tx);
    // An investigation asks when it was last used.
    if row.seen_at <= before
        && let Err(cause) = deps.store.touch_session(row.org, &hash, before).await
    {
        // Nobody is turned away for that.
        tracing::debug!(org.id = %row.org, cause = %cause, "the use of a session could not be noted");
    }
    Ok(Some((org, user)))
}

/// Ends a session.
///
/// # Errors
/// When the database is unavailable.
pub async fn leave(deps: &Deps, session: &LinkToken) -> Result<(), Refusal> {
    let hash = deps.lookup.session(session)?;
    let Some((org, tx)) = deps.store.find(Keyed::Session(&hash)).await? else {
        return Ok(());
    };
    drop(tx);
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            if let Some(row) = tx.session(org, &hash).await? {
                let draft = EntryDraft {
                    user: Some(row.user),
                    outcome: Some("logout".to_owned()),
                    ..EntryDraft::default()
                };
                tx.delete_session(row.org, &hash).await?;
                tx.append_entry(row.org, record::open(deps, EntryType::Session, draft)?)
                    .await?;
                tx.commit().await?;
            }
            Ok(())
        })
        .await
}

impl Deps {
    /// A link of ours, for the one answer that hands it out.
    #[must_use]
    pub fn link_url(&self, page: &str, token: &LinkToken) -> String {
        format!("{}/{page}/{}", self.issuer, lookup::show_link(token))
    }
}

/// A session's use is noted at most this often.
const SEEN_EVERY: Duration = Duration::from_secs(60);
const LINK_LIFE: Duration = Duration::from_secs(600);
/// How long a browser session lives. Absolute; a session is not prolonged by use.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
