//! The slice: what is in it, and what facts it is made of.

use std::{collections::BTreeSet, sync::Arc};

use cedar_policy::{Entities, PolicySet, ValidationMode, Validator};

use serde_json::json;

use super::fixture::{PERMIT_ALL, delegated_all, delegation, get, number, parties, question, send, world};
use crate::{
    domain::{
        AgentId, DelegationId, GrantId, OrgId, ServiceId, UserId, connector::HTTP_REQUEST, decision::Outcome,
        delegation::Delegation,
    },
    policy::{CompiledPolicies, DelegationIndex, OrgPermit, Unpreparable},
};

#[test]
fn entities_fit_the_schema() {
    let compiled = world().compile(PERMIT_ALL, PERMIT_ALL).unwrap();
    let mut sparse = parties();
    sparse.user.email = None;
    sparse.user.managed_by = Some(ServiceId::from_bytes(number(9)));
    sparse.grant.account.id = None;
    sparse.grant.account.tenant = None;
    let mut full = parties();
    full.grant.label = Some("work".to_owned());
    for parties in [sparse, full] {
        let prepared = compiled.prepare(&parties, &[]).unwrap();
        let entities: Vec<_> = prepared.entities.iter().cloned().collect();
        let schema = &compiled.0.vocabulary.schema;
        Entities::from_entities(entities, Some(schema)).unwrap();
    }
}

#[test]
fn generated_permits_fit_the_schema() {
    let compiled = world().compile(PERMIT_ALL, PERMIT_ALL).unwrap();
    let named = Delegation {
        tools: BTreeSet::from(["messages.get".to_owned(), HTTP_REQUEST.to_owned()]),
        id: DelegationId::from_bytes(number(1)),
        ..delegated_all()
    };
    let prepared = compiled.prepare(&parties(), &[delegated_all(), named]).unwrap();
    let set: &PolicySet = &prepared.user.set;
    assert_eq!(set.num_of_policies(), 2);
    let validator = Validator::new(compiled.0.vocabulary.schema.clone());
    let result = validator.validate(set, ValidationMode::Strict);
    assert!(result.validation_passed_without_warnings(), "{result}");
}

#[test]
fn a_delegation_between_others_does_not_count() {
    let compiled = world().compile(PERMIT_ALL, PERMIT_ALL).unwrap();
    let other = number(99);
    for delegation in [
        Delegation {
            org: OrgId::from_bytes(other),
            ..delegated_all()
        },
        Delegation {
            user: UserId::from_bytes(other),
            ..delegated_all()
        },
        Delegation {
            agent: AgentId::from_bytes(other),
            ..delegated_all()
        },
        Delegation {
            grant: GrantId::from_bytes(other),
            ..delegated_all()
        },
    ] {
        let prepared = compiled
            .prepare(&parties(), std::slice::from_ref(&delegation))
            .unwrap();
        let evaluation = prepared.evaluate(&get(), &OrgPermit::Policy);
        assert_eq!(evaluation.outcome, Outcome::Deny, "{delegation:?}");
    }
}

#[test]
fn a_slice_does_not_grow_with_policies_about_others() {
    let others: String = (100..140)
        .map(|other| {
            let agent = AgentId::from_bytes(number(other));
            let grant = GrantId::from_bytes(number(other));
            let user = UserId::from_bytes(number(other));
            format!(
                "permit (principal == Agent::\"{agent}\", action, resource);
                 forbid (principal, action, resource == Grant::\"{grant}\");
                 forbid (principal, action, resource in User::\"{user}\");
                 forbid (principal, action in Action::\"acme-pay\", resource);\n"
            )
        })
        .collect();
    let compiled = world()
        .compile(&format!("{PERMIT_ALL}\n{others}"), PERMIT_ALL)
        .unwrap();
    let prepared = compiled.prepare(&parties(), &[]).unwrap();
    assert_eq!(prepared.org.set.num_of_policies(), 1);
}

#[test]
fn delegations_are_found_by_whom_they_are_about() {
    let other = Delegation {
        agent: AgentId::from_bytes(number(99)),
        ..delegation(1)
    };
    let index: DelegationIndex = [delegation(0), other.clone()].into_iter().collect();
    let found = index.of(other.agent, other.user, other.grant);
    assert_eq!(found, std::slice::from_ref(&other));
    assert!(
        index
            .of(other.agent, UserId::from_bytes(number(99)), other.grant)
            .is_empty()
    );
}

#[test]
fn an_unknown_connector_cannot_be_prepared() {
    let compiled = world().compile(PERMIT_ALL, PERMIT_ALL).unwrap();
    let mut parties = parties();
    parties.grant.connector = "other".parse().unwrap();
    assert_eq!(
        compiled.prepare(&parties, &[]).err(),
        Some(Unpreparable::UnknownConnector)
    );
}

#[test]
fn a_rule_that_decided_can_be_explained() {
    let compiled = world()
        .compile(
            "// mail\n@id(\"a\") permit (principal, action, resource);",
            PERMIT_ALL,
        )
        .unwrap();
    let prepared = compiled.prepare(&parties(), &[delegated_all()]).unwrap();
    let evaluation = prepared.evaluate(&get(), &OrgPermit::Policy);
    let rule = compiled.explain(&evaluation.determining[0]).unwrap();
    assert_eq!(
        (rule.file.as_str(), rule.line, rule.forbids),
        ("p.cedar", 2, false)
    );
}

#[test]
fn grants_share_the_policies_that_apply_to_them() {
    let compiled = world().compile(PERMIT_ALL, PERMIT_ALL).unwrap();
    let (one, mut other) = (parties(), parties());
    other.grant.id = GrantId::from_bytes(number(77));
    let [one, other] = [one, other].map(|parties| compiled.prepare(&parties, &[]).unwrap());
    assert!(Arc::ptr_eq(&one.org, &other.org) && Arc::ptr_eq(&one.agent, &other.agent));
    assert_ne!(one.uids.grant, other.uids.grant);
    // What nobody holds any more is made anew.
    let before = Arc::downgrade(&one.org);
    drop((one, other));
    assert!(before.upgrade().is_none());
    compiled.prepare(&parties(), &[]).unwrap();
}

#[test]
fn all_policies_of_a_deployment_share_one_vocabulary() {
    let world = world();
    let [one, other] = [PERMIT_ALL, ""].map(|org| world.compile(org, PERMIT_ALL).unwrap());
    assert!(Arc::ptr_eq(&one.0.vocabulary, &other.0.vocabulary));
}

#[test]
fn nobody_is_judged_by_what_applies_to_others() {
    let (agent, user, grant) = (
        AgentId::from_bytes(number(101)),
        UserId::from_bytes(number(102)),
        GrantId::from_bytes(number(103)),
    );
    let org = format!(
        "{PERMIT_ALL}
         forbid (principal == Agent::\"{agent}\", action in Action::\"write\", resource);
         forbid (principal, action in Action::\"read\", resource == Grant::\"{grant}\");
         forbid (principal, action == Action::\"acme-mail:messages.send\", resource in User::\"{user}\")
         when {{ context.args.subject == \"s\" }};
         forbid (principal, action == Action::\"acme-pay:transfers.create\", resource)
         when {{ context.args has urgent && context.args.urgent }};"
    );
    let compile = || world().compile(&org, PERMIT_ALL).unwrap();
    let shared = compile();
    let mut held = Vec::new();
    // Each bit is one of two: agent, user, grant, connector. There and back, so that each is made and found once.
    for which in (0..16).chain((0..16).rev()) {
        let mut parties = parties();
        if which & 1 != 0 {
            parties.agent.id = agent;
        }
        if which & 2 != 0 {
            parties.user.id = user;
        }
        if which & 4 != 0 {
            parties.grant.id = grant;
        }
        let mut asked = vec![get(), send(&["acme.example"])];
        if which & 8 != 0 {
            parties.grant.connector = "acme-pay".parse().unwrap();
            let transfer =
                json!({"amount": 1, "payee": {"local": "p", "domain": "acme.example"}, "urgent": true});
            asked = vec![
                question("transfers.create", transfer),
                question("transfers.list", json!({})),
            ];
        }
        let all = Delegation {
            agent: parties.agent.id,
            user: parties.user.id,
            grant: parties.grant.id,
            ..delegated_all()
        };
        let prepare =
            |compiled: &CompiledPolicies| compiled.prepare(&parties, std::slice::from_ref(&all)).unwrap();
        let (among_others, alone) = (prepare(&shared), prepare(&compile()));
        for question in asked {
            let [one, other] =
                [&among_others, &alone].map(|prepared| prepared.evaluate(&question, &OrgPermit::Policy));
            assert_eq!(one, other, "{which} {}", question.tool);
        }
        held.push(among_others);
    }
    // Who and which connector tell them apart: those that nothing names share one.
    let sets: BTreeSet<_> = held.iter().map(|prepared| Arc::as_ptr(&prepared.org)).collect();
    assert!(sets.len() > 8 && sets.len() <= 16, "{}", sets.len());
}
