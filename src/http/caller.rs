//! Who is calling, and whether this route is for them.
//!
//! A route's line in its table (`routes!`) says which principals may use it; [`Caller`] holds them to it, so a route
//! cannot forget. Everybody else who is known gets the same 403, everybody unknown the same 401.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{Method, request::Parts},
};

use super::{cookie, extract::BearerKey, problem::Problem, security::Site};
use crate::{
    crypto::random,
    domain::{
        OrgId, UserId,
        principal::{KeyKind, Principal, Role},
    },
    flows::{self, Deps, actions, authenticate, sight},
};

/// A kind of principal in the table of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// An admin key, or the session of a person who administers the org.
    Admin,
    /// The session of a person, admin or not.
    User,
    /// The key of a host application.
    Service,
    /// The key of an agent.
    Agent,
}

impl Who {
    /// The name in the API document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::Agent => "agent",
        }
    }

    fn includes(self, principal: &Principal) -> bool {
        match self {
            Self::Admin => sight::is_admin(principal),
            Self::User => matches!(principal, Principal::User { .. }),
            Self::Service => matches!(principal, Principal::Service { .. }),
            Self::Agent => matches!(principal, Principal::Agent { .. }),
        }
    }
}

/// The principals a route is for; set by the table of routes.
#[derive(Debug, Clone, Copy)]
pub struct Allowed(pub &'static [Who]);

/// The authenticated principal of a request, one of those the route is for.
#[derive(Debug)]
pub struct Caller(pub Principal);

impl FromRequestParts<Arc<Deps>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Self, Problem> {
        let principal = authenticate(parts, deps).await?;
        // SECURITY: a route without a table line is a fault of ours and serves nobody.
        let allowed = parts
            .extensions
            .get::<Allowed>()
            .ok_or_else(|| Problem::internal("a route asks for its caller without a line in the table"))?;
        if allowed.0.iter().any(|who| who.includes(&principal)) {
            Ok(Self(principal))
        } else {
            Err(wrong_principal())
        }
    }
}

async fn authenticate(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Principal, Problem> {
    let bearer = <BearerKey as OptionalFromRequestParts<Arc<Deps>>>::from_request_parts(parts, deps).await?;
    if let Some(BearerKey { claimed_kind, key }) = bearer {
        return Ok(authenticate::by_key(deps, claimed_kind, &key).await?);
    }
    let site = parts
        .extensions
        .get::<Arc<Site>>()
        .ok_or_else(|| Problem::internal("the router carries no site"))?;
    let session = cookie::SESSION
        .read(&parts.headers, site.is_https())
        .and_then(random::parse_link_token)
        .ok_or_else(|| Problem::unauthenticated().caused_by("neither a key nor a session"))?;
    let principal = authenticate::by_session(deps, &session).await?;
    if !is_safe(&parts.method) {
        // SECURITY: browsers send the cookie by themselves; a change must come from one of our own pages.
        site.check_form_origin(&parts.headers)?;
    }
    Ok(principal)
}

// RFC 9110 §9.2.1; TRACE is not routed.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// 403 for a known principal of the wrong kind, the same on every route.
#[must_use]
pub fn wrong_principal() -> Problem {
    Problem::denied(sight::WRONG_PRINCIPAL, None, None)
}

/// A calling agent.
#[derive(Debug, Clone, Copy)]
pub struct Agent(pub actions::Caller);

impl FromRequestParts<Arc<Deps>> for Agent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, deps).await?.0 {
            Principal::Agent { org, agent, key } => Ok(Self(flows::actions::Caller { org, agent, key })),
            _ => Err(wrong_principal()),
        }
    }
}

/// A calling agent whose key may be remembered: for routes that go through the gate (`authenticate::remembered_agent`).
#[derive(Debug, Clone, Copy)]
pub struct GatedAgent(pub actions::Caller);

impl FromRequestParts<Arc<Deps>> for GatedAgent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Self, Problem> {
        let bearer =
            <BearerKey as OptionalFromRequestParts<Arc<Deps>>>::from_request_parts(parts, deps).await?;
        match bearer {
            Some(BearerKey {
                claimed_kind: KeyKind::Agent,
                key,
            }) => Ok(Self(authenticate::remembered_agent(deps, &key).await?)),
            // Nobody, or somebody else: told as on every other route.
            _ => Agent::from_request_parts(parts, deps)
                .await
                .map(|Agent(caller)| Self(caller)),
        }
    }
}

/// Somebody who administers the org.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The tenant.
    pub org: OrgId,
    /// Who, as an id for entries.
    pub by: String,
}

impl FromRequestParts<Arc<Deps>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, deps).await?;
        if sight::is_admin(&principal) {
            Ok(Self {
                org: principal.org(),
                by: sight::id_of(&principal),
            })
        } else {
            Err(wrong_principal())
        }
    }
}

/// A person in their own session.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    /// The tenant.
    pub org: OrgId,
    /// Who.
    pub user: UserId,
    /// Their role.
    pub role: Role,
}

impl FromRequestParts<Arc<Deps>> for Person {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, deps: &Arc<Deps>) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, deps).await?.0 {
            Principal::User { org, user, role } => Ok(Self { org, user, role }),
            _ => Err(wrong_principal()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, KeyId, ServiceId};

    fn principals() -> [(&'static str, Principal); 5] {
        let org = OrgId::from_bytes([1; 16]);
        let key = KeyId::from_bytes([2; 16]);
        let user = UserId::from_bytes([3; 16]);
        let person = |role| Principal::User { org, user, role };
        [
            ("admin key", Principal::Admin { org, key }),
            ("admin person", person(Role::Admin)),
            ("member", person(Role::Member)),
            (
                "service",
                Principal::Service {
                    org,
                    service: ServiceId::from_bytes([4; 16]),
                    key,
                },
            ),
            (
                "agent",
                Principal::Agent {
                    org,
                    agent: AgentId::from_bytes([5; 16]),
                    key,
                },
            ),
        ]
    }

    #[test]
    fn each_kind_of_principal_includes_its_own_and_no_other() {
        for (who, included) in [
            (Who::Admin, &["admin key", "admin person"][..]),
            (Who::User, &["admin person", "member"]),
            (Who::Service, &["service"]),
            (Who::Agent, &["agent"]),
        ] {
            for (name, principal) in principals() {
                assert_eq!(
                    who.includes(&principal),
                    included.contains(&name),
                    "{who:?} {name}"
                );
            }
        }
    }

    #[test]
    fn only_methods_that_change_nothing_skip_the_origin_check() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!is_safe(&method), "{method}");
        }
        assert!(is_safe(&Method::GET));
    }
}
