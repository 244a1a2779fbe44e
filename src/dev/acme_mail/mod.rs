//! Acme Mail: the demo provider of `postern dev`, and the test double of the whole project.
//!
//! A real OAuth 2 authorization server (RFC 6749, 7009, 7636, 7662, 8414, 9207) and a small mail API, in memory, on
//! a loopback port of its own. It is a separate world: it knows nothing of Postern but a client id, and takes only
//! time and randomness from outside, so that what a test sees here is what an independent provider would have seen.
//!
//! Promises: PKCE S256 always; codes live 60 s and once; refresh tokens rotate with 60 s of grace for a retry, and
//! reuse after it ends the whole family; a narrower `scope` on refresh narrows the access token and never the grant.
//! It keeps digests of tokens, never tokens: neither its log nor its snapshot can leak one.
//!
//! `/admin/…` reads the log and injects faults without asking who calls. That is tolerable only on loopback, in a
//! demo; [`AcmeMail::router`] therefore answers no `Host` but its own and no request made by another site's page.

mod accounts;
mod admin;
mod answer;
mod api;
mod authorize;
mod client;
mod fault;
mod grants;
mod log;
mod mailbox;
mod metadata;
mod pages;
mod params;
mod revoke;
mod scopes;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use self::{
    answer::Answer,
    fault::{Fault, Faults, Target},
    grants::Grants,
    log::{Entry, Kind, Log},
    mailbox::Mailboxes,
};
use crate::domain::{Clock, Randomness, RandomnessUnavailable, Time};

/// The client id Postern is registered under in the demo.
pub const DEMO_CLIENT_ID: &str = "postern-dev";

/// What an Acme Mail is made of.
#[derive(Debug)]
pub struct Options {
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// The only source of tokens and codes.
    pub random: Arc<dyn Randomness>,
    /// Its own origin and RFC 8414 issuer, as `http://127.0.0.1:4001`, without a path.
    pub issuer: String,
    /// The one registered client.
    pub client: Client,
}

/// The one registered client.
pub struct Client {
    /// Its client id.
    pub id: String,
    /// What the pages call it.
    pub name: String,
    /// Its secret; `None` registers a public client, which then proves itself by PKCE alone.
    pub secret: Option<String>,
    /// Where its authorization responses may go.
    pub redirect_uris: Vec<RedirectUri>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("confidential", &self.secret.is_some())
            .field("redirect_uris", &self.redirect_uris)
            .finish()
    }
}

/// One registered redirect URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectUri {
    /// Exactly this string (RFC 9700 §2.1).
    Exact(String),
    /// This string, which ends in `/`, followed by exactly one path segment of letters, digits, `-`, `_` and `.`:
    /// for clients with one callback per context, as in `…/callback/{context}`.
    OneSegmentUnder(String),
}

/// The state could not become a snapshot, or a text is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the saved state of acme mail is unusable")]
pub struct SnapshotUnusable;

/// The demo provider; clones share one state.
#[derive(Debug, Clone)]
pub struct AcmeMail(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    issuer: String,
    hosts: BTreeSet<String>,
    client: client::Registered,
    world: Mutex<World>,
    keeper: OnceLock<Keeper>,
}

type Keeper = Box<dyn Fn(&AcmeMail) + Send + Sync>;

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeMail")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Everything that changes.
#[derive(Serialize, Deserialize)]
struct World {
    grants: Grants,
    mailboxes: Mailboxes,
    log: Log,
    #[serde(skip)]
    faults: Faults,
    #[serde(skip)]
    revision: u64,
}

impl AcmeMail {
    /// A provider with its three seeded mailboxes and no grants.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let issuer = options.issuer.trim_end_matches('/').to_owned();
        let world = World {
            grants: Grants::default(),
            mailboxes: Mailboxes::seeded(options.clock.now()),
            log: Log::default(),
            faults: Faults::default(),
            revision: 0,
        };
        Self(Arc::new(Inner {
            hosts: own_hosts(&issuer),
            issuer,
            client: client::Registered::new(options.client),
            clock: options.clock,
            random: options.random,
            world: Mutex::new(world),
            keeper: OnceLock::new(),
        }))
    }

    /// The same with another time in which a rotated refresh token may be sent again; zero: it may not.
    #[must_use]
    pub fn with_rotation_grace(self, grace: Duration) -> Self {
        self.world().grants.rotation_grace = grace;
        self
    }

    /// All endpoints, behind the `Host` and `Origin` checks.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(pages::home))
            .route("/acme.css", get(pages::style))
            .route("/acme.svg", get(pages::icon))
            .route("/authorize", get(authorize::show).post(authorize::submit))
            .route("/token", post(token::endpoint))
            .route("/revoke", post(revoke::endpoint))
            .route("/introspect", post(revoke::introspect))
            .route("/userinfo", get(api::userinfo))
            .route("/.well-known/oauth-authorization-server", get(metadata::endpoint))
            .route("/api/messages", get(api::list).post(api::send))
            .route("/api/messages/{id}", get(api::read).delete(api::delete))
            .route("/api/drafts", post(api::draft))
            .route("/admin/log", get(admin::log))
            .route("/admin/reset-log", post(admin::reset_log))
            .route("/admin/fault", post(admin::fault).delete(admin::clear_faults))
            .route("/admin/expire", post(admin::expire))
            .route("/admin/disconnect", post(admin::disconnect))
            .route("/admin/mailbox", get(admin::mailbox))
            .fallback(api::unknown)
            .method_not_allowed_fallback(api::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .with_state(self.clone())
    }

    /// The issuer, which is also the origin.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The whole state as JSON, for `postern dev --data`. It holds digests of tokens, never tokens.
    ///
    /// # Errors
    /// When the state cannot be written as JSON: keep the last snapshot then.
    pub fn snapshot(&self) -> Result<String, SnapshotUnusable> {
        serde_json::to_string(&*self.world()).map_err(|_| SnapshotUnusable)
    }

    /// Puts a snapshot back in place of the present state; grants made before keep working.
    ///
    /// # Errors
    /// When the text is not a snapshot; nothing has changed then.
    pub fn restore(&self, snapshot: &str) -> Result<(), SnapshotUnusable> {
        let restored: World = serde_json::from_str(snapshot).map_err(|_| SnapshotUnusable)?;
        let mut world = self.world();
        let revision = world.revision + 1;
        *world = World { revision, ..restored };
        Ok(())
    }

    /// Has `keep` called before each answer after which tokens may have changed: a provider that dies must still know what
    /// it gave. Only the first call counts.
    pub fn keep_tokens(&self, keep: impl Fn(&Self) + Send + Sync + 'static) {
        let _first = self.0.keeper.set(Box::new(keep));
    }

    /// Grows whenever the state may have changed: save a snapshot when it does.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.world().revision
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.0.clock.now()
    }

    /// 256 random bits behind a prefix that tells kinds apart and lets secret scanners find them.
    fn mint(&self, prefix: &str) -> Result<grants::Minted, RandomnessUnavailable> {
        let mut bytes = [0; 32];
        self.0.random.fill(&mut bytes)?;
        Ok(grants::Minted::new(prefix, &bytes))
    }

    /// Logs a request when it arrives, lets a waiting fault have its way with it, answers, completes the entry.
    ///
    /// A caller that hangs up meanwhile leaves an entry without status: it was seen all the same.
    async fn serve<F>(&self, draft: Entry, target: Option<Target>, answer: F) -> Response
    where
        F: FnOnce(&mut Entry, Option<&Fault>) -> Answer + Send,
    {
        let (mut entry, fault) = {
            let mut world = self.world();
            world.revision += 1;
            let fault = target.and_then(|target| {
                world
                    .faults
                    .take(target, &draft.path, draft.grant_type.as_deref())
            });
            (world.log.open(draft, self.now()), fault)
        };
        entry.fault = fault.is_some();
        let response = match fault {
            None => {
                let answer = answer(&mut entry, None);
                entry.error.clone_from(&answer.error);
                answer.into_response()
            }
            Some(fault) => fault.impose(&mut entry, answer).await,
        };
        entry.status = Some(response.status().as_u16());
        let about_tokens = entry.kind != Kind::Api;
        {
            let mut world = self.world();
            world.revision += 1;
            world.log.close(entry);
        }
        if about_tokens && let Some(keep) = self.0.keeper.get() {
            keep(self);
        }
        response
    }
}

/// SECURITY: a name that resolves to 127.0.0.1 (DNS rebinding) must not make this server answer a foreign page, and
/// no foreign page may post here, as it could do with a plain form: `/admin` and the consent ask for no password.
async fn guard(State(acme): State<AcmeMail>, request: Request, next: Next) -> Response {
    let mut response = if !acme.is_own_host(request.headers()) {
        (StatusCode::MISDIRECTED_REQUEST, "not a host of Acme Mail\n").into_response()
    } else if !request.method().is_safe() && !acme.is_own_origin(request.headers()) {
        (StatusCode::FORBIDDEN, "sent by another site\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // `no-referrer` would make browsers send `Origin: null` with the consent form.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

impl AcmeMail {
    fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
            (Some(host), None) => self.0.hosts.contains(host),
            _ => false,
        }
    }

    fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::ORIGIN).iter().all(|origin| {
            origin
                .to_str()
                .ok()
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|host| self.0.hosts.contains(host))
        })
    }
}

fn own_hosts(issuer: &str) -> BTreeSet<String> {
    let authority = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let mut hosts = BTreeSet::from([authority.to_owned()]);
    if let Some((_, port)) = authority.rsplit_once(':') {
        for name in ["127.0.0.1", "localhost", "[::1]"] {
            hosts.insert(format!("{name}:{port}"));
        }
    }
    hosts
}

const MAX_BODY: usize = 256 * 1024;
