//! What the notary puts into a decision.

use std::time::Duration;

use serde_json::json;

use super::fixture::{PERMIT_ALL, get, number, parties, world};
use crate::{
    domain::{
        Action, DecisionId, Mode, Time,
        action::ActionType,
        decision::{DecisionClaims, Outcome},
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
