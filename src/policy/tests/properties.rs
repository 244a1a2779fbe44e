//! I13 over random policies: a forbid never opens, a layer never widens, a slice answers as the whole, an error denies.

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::{collection::vec, prelude::*, sample::select};

use super::fixture::{World, delegation, get, number, parties, question, send, world};
use crate::{
    domain::{
        AgentId, GrantId, Mode, ModeSet, UserId,
        connector::{Category, HTTP_REQUEST},
        decision::Outcome,
        delegation::Delegation,
    },
    policy::{Evaluation, OrgPermit, Question},
};

pub(super) static WORLD: LazyLock<World> = LazyLock::new(world);

const ME: u128 = 1;
const OTHER: u128 = 99;
/// Everything, under the widest terms, `http.request` named.
pub(super) const WIDEST: &str = "@modes(\"execute,handle,token,raw\") permit (principal, action, resource);
    @modes(\"execute,handle,token,raw\") permit (principal, action == Action::\"acme-mail:http.request\", resource);";

pub(super) fn scope() -> impl Strategy<Value = String> {
    let agent = |id| format!("Agent::\"{}\"", AgentId::from_bytes(number(id)));
    let principals = vec![
        "principal".to_owned(),
        "principal".to_owned(),
        "principal is Agent".to_owned(),
        format!("principal == {}", agent(ME)),
        format!("principal == {}", agent(OTHER)),
        format!("principal in {}", agent(ME)),
        format!("principal is Agent in {}", agent(OTHER)),
    ];
    let actions = vec![
        "action",
        "action",
        "action in Action::\"read\"",
        "action in [Action::\"write\", Action::\"destructive\"]",
        "action in Action::\"acme-mail\"",
        "action in Action::\"acme-pay\"",
        "action in [Action::\"acme-pay\", Action::\"acme-mail:messages.get\"]",
        "action in [Action::\"acme-pay\", Action::\"read\"]",
        "action == Action::\"acme-mail:messages.get\"",
        "action == Action::\"acme-mail:messages.send\"",
        "action == Action::\"acme-pay:transfers.list\"",
        "action == Action::\"acme-mail:http.request\"",
        "action in [Action::\"read\", Action::\"acme-mail:http.request\"]",
    ];
    let grant = |id| format!("Grant::\"{}\"", GrantId::from_bytes(number(id)));
    let user = |id| format!("User::\"{}\"", UserId::from_bytes(number(id)));
    let resources = vec![
        "resource".to_owned(),
        "resource".to_owned(),
        "resource is Grant".to_owned(),
        format!("resource == {}", grant(3)),
        format!("resource == {}", grant(OTHER)),
        format!("resource in {}", grant(3)),
        format!("resource in {}", user(2)),
        format!("resource in {}", user(OTHER)),
        format!("resource is Grant in {}", user(2)),
    ];
    (select(principals), select(actions), select(resources))
        .prop_map(|(principal, action, resource)| format!("({principal}, {action}, {resource})"))
}

fn condition() -> impl Strategy<Value = &'static str> {
    prop_oneof![30 => ordinary_condition(), 1 => select(vec![OVERFLOW, MISSING])]
}

const OVERFLOW: &str = "when { context.time.unix_s * 9223372036854775807 > 0 }";
pub(super) const MISSING: &str = "when { User::\"usr_7zzzzzzzzzzzzzzzzzzzzzzzzz\".role == \"admin\" }";

fn ordinary_condition() -> impl Strategy<Value = &'static str> {
    select(vec![
        "",
        "",
        "when { context.live_session }",
        "unless { context.live_session }",
        "when { context.args has subject }",
        "unless { context.approvals.contains(\"user\") }",
        "unless { context.approvals.contains(\"four_eyes\") }",
        "when { context.time.hour == 12 }",
        "when { resource.owner has domain && resource.owner.domain == \"acme.example\" }",
    ])
}

fn permit() -> impl Strategy<Value = String> {
    let terms = select(vec![
        "",
        "",
        "@modes(\"execute\")",
        "@modes(\"execute,token\")",
        "@modes(\"execute,handle,token,raw\")",
        "@max_ttl(\"60\") @modes(\"handle,token\")",
        "@limit(\"5/h\")",
    ]);
    (terms, scope(), condition())
        .prop_map(|(terms, scope, condition)| format!("{terms} permit {scope} {condition};"))
}

/// A forbid that nothing lifts.
fn plain_forbid() -> impl Strategy<Value = String> {
    (scope(), condition()).prop_map(|(scope, condition)| format!("forbid {scope} {condition};"))
}

fn lifted_forbid() -> impl Strategy<Value = String> {
    (select(vec!["user", "four_eyes"]), scope()).prop_map(|(kind, scope)| {
        format!("@escalate(\"{kind}\") forbid {scope} unless {{ context.approvals.contains(\"{kind}\") }};")
    })
}

fn forbid() -> impl Strategy<Value = String> {
    prop_oneof![1 => plain_forbid(), 3 => lifted_forbid()]
}

/// Many permits and few forbids, or nothing would ever be allowed.
pub(super) fn layer() -> impl Strategy<Value = String> {
    (
        vec(permit(), 0..4),
        vec(forbid(), 0..2),
        prop::bool::weighted(0.7),
    )
        .prop_map(|(permits, forbids, open)| {
            let mut texts = permits;
            texts.extend(forbids);
            if open {
                texts.push(WIDEST.to_owned());
            }
            texts.join("\n")
        })
}

pub(super) fn delegations() -> impl Strategy<Value = Vec<Delegation>> {
    let one = (
        vec(select(Category::ALL.to_vec()), 0..4),
        vec(select(vec!["messages.get", "messages.send", HTTP_REQUEST]), 0..2),
        any::<bool>(),
        select(vec![
            (ME, 2, 3),
            (ME, 2, 3),
            (ME, 2, 3),
            (OTHER, 2, 3),
            (ME, 2, OTHER),
        ]),
    );
    (vec(one, 0..4), prop::bool::weighted(0.7)).prop_map(|(drawn, all)| {
        let all = all.then(delegated_everything);
        let drawn = (1..).zip(drawn).map(
            |(id, (categories, tools, raw, (agent, user, grant)))| Delegation {
                agent: AgentId::from_bytes(number(agent)),
                user: UserId::from_bytes(number(user)),
                grant: GrantId::from_bytes(number(grant)),
                categories: categories.into_iter().collect(),
                tools: tools.into_iter().map(str::to_owned).collect(),
                raw,
                ..delegation(id)
            },
        );
        drawn.chain(all).collect()
    })
}

/// Every tool, by name: only so is `http.request` delegated.
pub(super) fn delegated_everything() -> Delegation {
    let every_tool = ["messages.get", "messages.send", "messages.delete", HTTP_REQUEST];
    Delegation {
        categories: Category::ALL.into(),
        tools: every_tool.map(str::to_owned).into(),
        raw: true,
        ..delegation(0)
    }
}

pub(super) fn asked() -> impl Strategy<Value = Question> {
    let tools = select(vec![
        get(),
        get(),
        send(&["acme.example"]),
        question("messages.delete", serde_json::json!({"id": "m1"})),
        question(HTTP_REQUEST, serde_json::json!({"method": "GET", "path": "/api"})),
    ]);
    let approvals = select(vec![
        vec![],
        vec![],
        vec![],
        vec!["user"],
        vec!["user", "four_eyes"],
    ]);
    (tools, any::<bool>(), approvals).prop_map(|(question, live_session, approvals)| Question {
        live_session,
        approvals: approvals.into_iter().map(|kind| kind.parse().unwrap()).collect(),
        ..question
    })
}

fn evaluate(org: &str, agent: &str, delegations: &[Delegation], question: &Question) -> Evaluation {
    let compiled = WORLD.compile(org, agent).unwrap();
    let prepared = compiled.prepare(&parties(), delegations).unwrap();
    prepared.evaluate(question, &OrgPermit::Policy)
}

/// Everything that `left` would release, `right` would too.
fn is_within(left: &Evaluation, right: &Evaluation) -> bool {
    let modes = |evaluation: &Evaluation| match evaluation.outcome {
        Outcome::Allow => evaluation.modes,
        _ => ModeSet::NONE,
    };
    let allowed = left.outcome != Outcome::Allow || right.outcome == Outcome::Allow;
    let narrower = modes(left).intersection(modes(right)) == modes(left);
    let shorter = left.outcome != Outcome::Allow
        || right
            .max_ttl_s
            .is_none_or(|right| left.max_ttl_s.is_some_and(|left| left <= right));
    let budgeted =
        left.outcome != Outcome::Allow || right.limits.iter().all(|limit| left.limits.contains(limit));
    allowed && narrower && shorter && budgeted
}

/// What must not depend on slicing: everything but which error was met and what is noted about other tools.
fn answer(
    evaluation: &Evaluation,
) -> (
    Outcome,
    Option<&str>,
    ModeSet,
    &[String],
    &BTreeSet<crate::policy::ApprovalKind>,
) {
    (
        evaluation.outcome,
        evaluation.reason.as_deref(),
        evaluation.modes,
        &evaluation.determining,
        &evaluation.escalate,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_forbid_never_allows_more(
        org in layer(), agent in layer(), more in vec(forbid(), 1..3), to_org in any::<bool>(),
        delegations in delegations(), question in asked(),
    ) {
        let before = evaluate(&org, &agent, &delegations, &question);
        let more = more.join("\n");
        let after = if to_org {
            evaluate(&format!("{org}\n{more}"), &agent, &delegations, &question)
        } else {
            evaluate(&org, &format!("{agent}\n{more}"), &delegations, &question)
        };
        prop_assert!(is_within(&after, &before), "{before:?}\n{after:?}");
    }

    #[test]
    fn adding_a_forbid_that_nothing_lifts_never_asks_a_human(
        org in layer(), agent in layer(), more in plain_forbid(), delegations in delegations(), question in asked(),
    ) {
        let before = evaluate(&org, &agent, &delegations, &question);
        let after = evaluate(&format!("{org}\n{more}"), &agent, &delegations, &question);
        prop_assert!(before.outcome != Outcome::Deny || after.outcome == Outcome::Deny, "{before:?}\n{after:?}");
    }

    #[test]
    fn no_layer_widens_what_the_others_leave(
        org in layer(), agent in layer(), delegations in delegations(), question in asked(),
    ) {
        let all = evaluate(&org, &agent, &delegations, &question);
        for fewer in [
            evaluate(WIDEST, &agent, &delegations, &question),
            evaluate(&org, WIDEST, &delegations, &question),
            evaluate(&org, &agent, &[delegated_everything()], &question),
        ] {
            prop_assert!(is_within(&all, &fewer), "{all:?}\n{fewer:?}");
        }
    }

    #[test]
    fn a_slice_answers_as_the_whole_set(
        org in layer(), agent in layer(), delegations in delegations(), question in asked(), external in any::<bool>(),
    ) {
        let compiled = WORLD.compile(&org, &agent).unwrap();
        let permit = if external {
            OrgPermit::External { modes: Some(ModeSet::ALL), max_ttl_s: None }
        } else {
            OrgPermit::Policy
        };
        let slice = compiled.prepare(&parties(), &delegations).unwrap().evaluate(&question, &permit);
        let whole = compiled.prepare_whole(&parties(), &delegations).unwrap().evaluate(&question, &permit);
        prop_assert_eq!(answer(&slice), answer(&whole));
        prop_assert_eq!(slice.reads_args, whole.reads_args);
        prop_assert_eq!(slice.layers, whole.layers);
    }

    #[test]
    fn an_error_in_any_layer_denies(
        org in layer(), agent in layer(), error_in_org in any::<bool>(), forbids in any::<bool>(),
        missing in any::<bool>(), delegations in delegations(), question in asked(),
    ) {
        let effect = if forbids { "forbid" } else { "permit" };
        let condition = if missing { MISSING } else { OVERFLOW };
        let failing = format!("{effect} (principal, action, resource) {condition};");
        let evaluation = if error_in_org {
            evaluate(&format!("{org}\n{failing}"), &agent, &delegations, &question)
        } else {
            evaluate(&org, &format!("{agent}\n{failing}"), &delegations, &question)
        };
        prop_assert_eq!(evaluation.outcome, Outcome::Deny);
        prop_assert_eq!(evaluation.reason.as_deref(), Some("policy_error"));
        prop_assert!(evaluation.modes.is_empty());
    }

    #[test]
    fn another_permit_in_a_layer_that_allows_only_narrows_the_modes(
        org in layer(), agent in layer(), terms in select(vec!["", "@modes(\"execute\")", "@modes(\"execute,token\")"]),
        delegations in delegations(), question in asked(),
    ) {
        let before = evaluate(&org, &agent, &delegations, &question);
        prop_assume!(before.outcome == Outcome::Allow);
        let more = format!("{terms} permit (principal, action, resource);");
        let after = evaluate(&format!("{org}\n{more}"), &agent, &delegations, &question);
        prop_assert!(is_within(&after, &before), "{before:?}\n{after:?}");
    }

    #[test]
    fn an_external_permit_is_never_wider_than_an_open_organisation(
        org in layer(), agent in layer(), delegations in delegations(), question in asked(),
        modes in vec(select(Mode::ALL.to_vec()), 0..4),
    ) {
        let modes: ModeSet = modes.into_iter().collect();
        let permit = OrgPermit::External { modes: Some(modes), max_ttl_s: None };
        let compiled = WORLD.compile(&org, &agent).unwrap();
        let external = compiled.prepare(&parties(), &delegations).unwrap().evaluate(&question, &permit);
        let open = evaluate(WIDEST, &agent, &delegations, &question);
        prop_assert!(external.outcome != Outcome::Allow || open.outcome == Outcome::Allow);
        prop_assert_eq!(external.modes.intersection(modes), external.modes);
    }
}

/// The properties say nothing if hardly anything is ever allowed.
#[test]
fn random_policies_allow_deny_and_escalate() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let drawn = (layer(), layer(), delegations(), asked());
    let mut counts = [0_u32; 3];
    for _ in 0..150 {
        let (org, agent, delegations, question) = drawn.new_tree(&mut runner).unwrap().current();
        let number = match evaluate(&org, &agent, &delegations, &question).outcome {
            Outcome::Allow => 0,
            Outcome::Deny => 1,
            Outcome::Escalate => 2,
        };
        counts[number] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
}
