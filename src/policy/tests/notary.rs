//! What the notary puts into a decision.

use std::time::Duration;

use serde_json::json;

use super::fixture::{PERMIT_ALL, get, number, parties, world};
use crate::{
    crypto::jcs,
    domain::{
        Action, ApprovalId, DecisionId, Mode, Time,
        action::ActionType,
        decision::{Actor, ApprovalRef, Confirmation, Constraints, DecisionClaims, Outcome},
    },
    policy::{
        Evaluation,
        notary::{self, DEFAULT_LIFE, Occasion},
    },
};

fn action() -> Action {
    let parties = parties();
    Action {
        typ: ActionType::V1,
        org: parties.org,
        user: parties.user.id,
        agent: parties.agent.id,
        grant: parties.grant.id,
        connector: parties.grant.connector,
        tool: "messages.get".to_owned(),
        tool_digest: "sha256:00".to_owned(),
        args: json!({"id": "m1"}),
    }
}

fn decided(evaluation: &Evaluation, life: Duration) -> DecisionClaims {
    let action = action();
    let occasion = Occasion {
        issuer: "https://postern.example",
        id: DecisionId::from_bytes(number(7)),
        entry: None,
        action: &action,
        action_hash: "hash",
        run: None,
        scopes: None,
        cnf: None,
        approvals: Vec::new(),
        context_digest: None,
        live_session: false,
        now: Time::from_unix_seconds(1_000),
        life,
    };
    notary::claims(evaluation, occasion)
}

#[test]
fn a_decision_is_bound_to_the_action_and_the_audience() {
    let claims = decided(&world().ask(PERMIT_ALL, PERMIT_ALL, &get()), DEFAULT_LIFE);
    let action = action();
    assert_eq!(
        claims.aud,
        "https://postern.example/orgs/org_00000000000000000000000004"
    );
    assert_eq!(
        (claims.org, claims.sub, claims.act.sub),
        (action.org, action.user, action.agent)
    );
    assert_eq!(
        (claims.grant, claims.tool.as_str()),
        (action.grant, "messages.get")
    );
    assert_eq!((claims.iat, claims.exp), (1_000, 1_060));
    assert_eq!(claims.jti, "dec_00000000000000000000000007");
    assert_eq!(claims.outcome, Outcome::Allow);
}

#[test]
fn a_decision_never_lives_longer_than_two_minutes() {
    let claims = decided(
        &world().ask(PERMIT_ALL, PERMIT_ALL, &get()),
        Duration::from_secs(86_400),
    );
    assert_eq!(claims.exp - claims.iat, 120);
}

#[test]
fn a_denied_decision_names_no_mode() {
    let claims = decided(&world().ask("", PERMIT_ALL, &get()), DEFAULT_LIFE);
    assert_eq!(claims.outcome, Outcome::Deny);
    assert!(claims.constraints.modes.unwrap().is_empty());
}

#[test]
fn an_allowed_decision_names_its_modes() {
    let claims = decided(&world().ask(PERMIT_ALL, PERMIT_ALL, &get()), DEFAULT_LIFE);
    let modes: Vec<Mode> = claims.constraints.modes.unwrap().iter().collect();
    assert_eq!(modes, [Mode::Execute, Mode::Handle]);
}

/// What is signed is serialised as it is declared; were a member out of place, another reader's canonical form differed.
#[test]
fn claims_with_every_member_are_canonical_as_they_are_serialised() {
    let plain = decided(&world().ask(PERMIT_ALL, PERMIT_ALL, &get()), DEFAULT_LIFE);
    let full = DecisionClaims {
        act: Actor {
            run: Some("run \u{fb33} \"1\"\n".to_owned()),
            ..plain.act.clone()
        },
        approvals: vec![ApprovalRef {
            id: ApprovalId::from_bytes(number(8)),
        }],
        constraints: Constraints {
            cnf: Some(Confirmation {
                jkt: "thumbprint".to_owned(),
            }),
            max_ttl_s: Some(3600),
            scopes: Some(["b", "a"].map(str::to_owned).into_iter().collect()),
            ..plain.constraints.clone()
        },
        context_digest: Some("sha256:00".to_owned()),
        ..plain.clone()
    };
    for claims in [plain, full] {
        let serialised = serde_json::to_string(&claims).unwrap();
        let canonical = jcs::canonicalize(&claims).unwrap();
        assert_eq!(serialised.as_bytes(), canonical, "{serialised}");
    }
}
