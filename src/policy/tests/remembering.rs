//! What Cedar is asked once for all requests, and what it has to be asked each time.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    fixture::{NOON, PERMIT_ALL, delegation, get, number, parties, question, send},
    properties::{MISSING, WIDEST, WORLD, asked, delegated_everything, delegations, layer, scope},
};
use crate::{
    domain::{
        DelegationId, ModeSet, Time,
        connector::{Category, HTTP_REQUEST},
        decision::Outcome,
        delegation::Delegation,
    },
    policy::{Budget, CompiledPolicies, OrgPermit, PreparedFacts, Question},
};

const MORNING: &str = "2026-11-20T09:00:00Z";
const EVENING: &str = "2026-11-20T18:00:00Z";

fn at(text: &str) -> Time {
    Time::parse_rfc3339(text).unwrap()
}

/// A layer that reads nothing of the context, or at one tool.
fn fixed_layer() -> impl Strategy<Value = String> {
    let condition = select(vec![
        "",
        "",
        "when { resource.owner has domain && resource.owner.domain == \"acme.example\" }",
        "when { resource.account.label == \"else\" }",
        "unless { principal.name == \"demo\" }",
        "when { action in Action::\"read\" }",
    ]);
    let failing = prop::bool::weighted(0.05);
    let head = select(vec![
        "permit",
        "permit",
        "@modes(\"execute,token\") permit",
        "@limit(\"5/h\") permit",
        "@id(\"b\") @reason(\"closed\") @message(\"No.\") forbid",
        "@id(\"a\") forbid",
    ]);
    let one = (head, scope(), condition, failing).prop_map(|(head, scope, condition, failing)| {
        let condition = if failing { MISSING } else { condition };
        (head, format!("{head} {scope} {condition};"))
    });
    let at_one_tool = select(vec![
        "",
        "",
        "forbid (principal, action == Action::\"acme-mail:messages.send\", resource)
         when { context.args.subject == \"s\" };",
        "permit (principal, action == Action::\"acme-mail:http.request\", resource)
         when { context.live_session };",
    ]);
    let open = prop::bool::weighted(0.8);
    (vec(one, 0..4), at_one_tool, open).prop_map(|(drawn, at_one_tool, open)| {
        let mut texts: Vec<String> = Vec::new();
        // A file has a name once.
        for (number, (head, text)) in drawn.iter().enumerate() {
            let again = drawn.iter().skip(number + 1).any(|(other, _)| other == head);
            if !(again && head.starts_with("@id")) {
                texts.push(text.clone());
            }
        }
        texts.push(at_one_tool.to_owned());
        if open {
            texts.push(WIDEST.to_owned());
        }
        texts.join("\n")
    })
}

fn any_layer() -> impl Strategy<Value = String> {
    prop_oneof![3 => fixed_layer(), 1 => layer()]
}

/// Some of which end while the questions are asked.
fn ending() -> impl Strategy<Value = Vec<Delegation>> {
    let ends = select(vec![None, None, Some(NOON), Some(EVENING)]);
    (delegations(), vec(ends, 8)).prop_map(|(delegations, ends)| {
        let ending = delegations.into_iter().zip(ends);
        ending
            .map(|(delegation, end)| Delegation {
                expires_at: end.map(at),
                ..delegation
            })
            .collect()
    })
}

/// Right ones, and such as do not fit the schema.
fn any_question() -> impl Strategy<Value = Question> {
    let mail = json!({"local": "x", "domain": "acme.example"});
    let call = |q: Value| question(HTTP_REQUEST, json!({"method": "GET", "path": "/", "query": q}));
    let mailed = |to: Value| question("messages.send", json!({"to": to, "subject": "t", "body": ""}));
    let odd = select(vec![
        question("messages.get", json!({})),
        question("messages.get", json!({"id": 1})),
        question("messages.get", json!({"id": null})),
        question("messages.get", json!({"id": "m1", "more": "x"})),
        question("messages.get", json!(["m1"])),
        question("messages.get", json!(null)),
        question("messages.get", json!({"id": "m2"})),
        question("messages.list", json!({"limit": 20})),
        question("messages.list", json!({"limit": 20, "q": "x"})),
        question("messages.list", json!({"limit": 1.5})),
        question("messages.list", json!({"limit": u64::MAX})),
        question("messages.list", json!({"q": "x"})),
        mailed(json!([mail])),
        mailed(json!([mail, "x"])),
        mailed(json!(mail)),
        question("messages.send", json!({"to": [], "body": ""})),
        question(HTTP_REQUEST, json!({"method": "GET"})),
        call(json!([["a", "b"]])),
        call(json!([["a"]])),
        question("messages.nothing", json!({})),
        Question {
            admission_age_s: Some(u64::MAX),
            ..get()
        },
        Question {
            admission_age_s: Some(60),
            ..get()
        },
        Question {
            now: Time::from_unix_micros(i64::MAX),
            ..get()
        },
        Question {
            claimed: Some(json!({"input": ["untrusted", {"a": null}], "b": {}})),
            ..get()
        },
        Question {
            budgets: vec![Budget {
                name: "b".to_owned(),
                left: 0,
            }],
            ..send(&["acme.example"])
        },
    ]);
    let ordinary = (asked(), select(vec![MORNING, NOON, NOON, EVENING]));
    let ordinary = ordinary.prop_map(|(question, now)| Question {
        now: at(now),
        ..question
    });
    prop_oneof![2 => ordinary, 1 => odd]
}

fn any_permit() -> impl Strategy<Value = OrgPermit> {
    let external = OrgPermit::External {
        modes: Some(ModeSet::ALL),
        max_ttl_s: Some(60),
    };
    select(vec![OrgPermit::Policy, OrgPermit::Policy, external])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn facts_that_were_asked_before_answer_as_cedar_asked_afresh(
        org in any_layer(), agent in any_layer(), delegations in ending(),
        asked in vec((any_question(), any_permit(), any::<bool>()), 1..16),
    ) {
        let compiled = WORLD.compile(&org, &agent).unwrap();
        let facts = compiled.prepare(&parties(), &delegations).unwrap();
        let also = facts.clone();
        let cedar = facts.forgetful();
        for (question, permit, by_clone) in &asked {
            let fresh = compiled.prepare(&parties(), &delegations).unwrap();
            let remembering = if *by_clone { &also } else { &facts };
            let [answer, fresh, cedar] =
                [remembering, &fresh, &cedar].map(|facts| facts.evaluate(question, permit));
            prop_assert_eq!(&answer, &cedar, "{:?}", question);
            prop_assert_eq!(&answer, &fresh, "{:?}", question);
        }
    }
}

fn remembers(facts: &PreparedFacts, tool: &str) -> bool {
    facts.memory.of(&facts.connector.tools[tool]).is_some()
}

/// The property says nothing if hardly anything is ever remembered.
#[test]
fn random_answers_are_remembered_and_others_are_not() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let drawn = (any_layer(), any_layer(), ending());
    let mut counts = [0_u32; 3];
    for _ in 0..150 {
        let (org, agent, delegations) = drawn.new_tree(&mut runner).unwrap().current();
        let compiled = WORLD.compile(&org, &agent).unwrap();
        let facts = compiled.prepare(&parties(), &delegations).unwrap();
        let outcome = facts.evaluate(&get(), &OrgPermit::Policy).outcome;
        let number = match (remembers(&facts, "messages.get"), outcome) {
            (true, Outcome::Allow) => 0,
            (true, _) => 1,
            (false, _) => 2,
        };
        counts[number] += 1;
        assert!(!remembers(&facts, "messages.list"), "was never asked");
    }
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
}

fn compiled(org: &str, agent: &str) -> CompiledPolicies {
    WORLD.compile(org, agent).unwrap()
}

fn facts(org: &str, agent: &str) -> PreparedFacts {
    let compiled = compiled(org, agent);
    compiled.prepare(&parties(), &[delegated_everything()]).unwrap()
}

fn outcomes<const N: usize>(facts: &PreparedFacts, questions: [Question; N]) -> [Outcome; N] {
    questions.map(|question| facts.evaluate(&question, &OrgPermit::Policy).outcome)
}

fn at_each(times: [&str; 3]) -> [Question; 3] {
    times.map(|time| Question {
        now: at(time),
        ..get()
    })
}

const CLOSED_IN_THE_EVENING: &str =
    "forbid (principal, action in Action::\"read\", resource) when { context.time.hour >= 18 };";

#[test]
fn a_policy_that_reads_the_clock_is_asked_each_time() {
    let closing = format!("{PERMIT_ALL} {CLOSED_IN_THE_EVENING}");
    for (org, agent) in [(closing.as_str(), PERMIT_ALL), (PERMIT_ALL, closing.as_str())] {
        let facts = facts(org, agent);
        assert_eq!(
            outcomes(&facts, at_each([NOON, EVENING, NOON])),
            [Outcome::Allow, Outcome::Deny, Outcome::Allow]
        );
        assert!(!remembers(&facts, "messages.get"));
        // It has no say about other tools.
        outcomes(&facts, [send(&["acme.example"])]);
        assert!(remembers(&facts, "messages.send"));
    }
}

/// Cedar evaluates an open permit for `http.request` too, though it opens nothing there.
#[test]
fn a_permit_that_does_not_apply_can_still_fail_by_the_clock() {
    let late = "permit (principal, action, resource) when { context.time.unix_s * 9223372036854775807 > 0 };";
    let facts = facts(&format!("{WIDEST} {late}"), WIDEST);
    let call = |time: &str| Question {
        now: at(time),
        ..question(HTTP_REQUEST, json!({"method": "GET", "path": "/"}))
    };
    let times = ["1970-01-01T00:00:01Z", NOON, "1970-01-01T00:00:01Z"];
    assert_eq!(
        outcomes(&facts, times.map(call)),
        [Outcome::Allow, Outcome::Deny, Outcome::Allow]
    );
}

#[test]
fn a_delegation_ends_at_its_time_though_cedar_is_not_asked_again() {
    let until_noon = Delegation {
        expires_at: Some(at(NOON)),
        categories: [Category::Read].into(),
        ..delegation(1)
    };
    let longer = Delegation {
        id: DelegationId::from_bytes(number(2)),
        expires_at: Some(at(EVENING)),
        ..until_noon.clone()
    };
    let facts = compiled(PERMIT_ALL, PERMIT_ALL)
        .prepare(&parties(), &[until_noon, longer])
        .unwrap();
    let asked = at_each([MORNING, NOON, EVENING]);
    let answers = asked.map(|question| facts.evaluate(&question, &OrgPermit::Policy));
    assert!(remembers(&facts, "messages.get"));
    let outcomes = answers.each_ref().map(|answer| answer.outcome);
    assert_eq!(outcomes, [Outcome::Allow, Outcome::Allow, Outcome::Deny]);
    assert_eq!(answers[2].reason.as_deref(), Some("not_delegated"));
    assert_eq!(answers[0].determining.len(), answers[1].determining.len() + 1);
}

#[test]
fn facts_that_do_not_fit_are_refused_though_cedar_is_not_asked_again() {
    let facts = facts(PERMIT_ALL, PERMIT_ALL);
    let wrong = [
        json!({}),
        json!({"id": 1}),
        json!({"id": "m1", "more": 1}),
        json!([]),
    ];
    let wrong = wrong.map(|args| question("messages.get", args));
    for question in wrong {
        assert_eq!(outcomes(&facts, [get()]), [Outcome::Allow]);
        assert!(remembers(&facts, "messages.get"));
        let refused = facts.evaluate(&question, &OrgPermit::Policy);
        assert_eq!(refused.reason.as_deref(), Some("policy_error"), "{question:?}");
        assert_eq!(refused, facts.forgetful().evaluate(&question, &OrgPermit::Policy));
    }
}

#[test]
fn what_failed_is_not_remembered() {
    let failing = format!("{PERMIT_ALL} forbid (principal, action, resource) {MISSING};");
    let facts = facts(PERMIT_ALL, &failing);
    assert_eq!(outcomes(&facts, [get(), get()]), [Outcome::Deny; 2]);
    assert!(!remembers(&facts, "messages.get"));
}

#[test]
fn an_org_with_very_many_matching_rules_is_asked_each_time() {
    let facts = facts(&PERMIT_ALL.repeat(100), PERMIT_ALL);
    assert_eq!(outcomes(&facts, [get(), get()]), [Outcome::Allow; 2]);
    assert!(!remembers(&facts, "messages.get"));
}

#[test]
fn clones_remember_together_and_other_grants_by_themselves() {
    let compiled = compiled(PERMIT_ALL, PERMIT_ALL);
    let prepare = || compiled.prepare(&parties(), &[delegated_everything()]).unwrap();
    let (facts, other) = (prepare(), prepare());
    let clone = facts.clone();
    outcomes(&clone, [get()]);
    assert!(Arc::ptr_eq(&facts.memory, &clone.memory) && remembers(&facts, "messages.get"));
    assert!(!remembers(&other, "messages.get"));
}
