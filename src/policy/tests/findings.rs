//! What `policy check` refuses, and where it points.

use super::fixture::{PERMIT_ALL, sources, world};
use crate::policy::{PolicyFinding, PolicyText, Severity, check};

fn findings(org: &str) -> Vec<PolicyFinding> {
    let report = check(&sources(org, PERMIT_ALL), &world().actions());
    assert!(!report.ok, "{org}");
    report.findings
}

fn only(org: &str) -> PolicyFinding {
    let mut findings = findings(org);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn a_permit_that_reads_the_claimed_context_is_refused() {
    for condition in [
        "context.claimed.contains({path: \"/a\", value: \"b\"})",
        "{a: context}.a.claimed.isEmpty()",
        "context == context",
    ] {
        let finding = only(&format!(
            "permit (principal, action, resource) when {{ {condition} }};"
        ));
        assert!(finding.message.contains("context.claimed"), "{finding}");
    }
}

#[test]
fn a_permit_that_reads_the_claimed_context_in_unless_is_refused() {
    let finding = only("permit (principal, action, resource) unless { context.claimed.isEmpty() };");
    assert!(finding.message.contains("context.claimed"), "{finding}");
}

#[test]
fn a_forbid_may_read_the_claimed_context() {
    let org = "forbid (principal, action, resource) unless { context.claimed.isEmpty() };";
    assert!(check(&sources(org, PERMIT_ALL), &world().actions()).ok);
}

#[test]
fn a_syntax_error_is_found_at_its_place() {
    let finding = only("permit (principal, action, resource);\n  permit (principal action, resource);");
    assert_eq!((finding.file.as_str(), finding.line), ("p.cedar", 2), "{finding}");
    assert_eq!(finding.column, 21, "{finding}");
}

#[test]
fn a_type_error_is_found_at_its_place() {
    let finding = only("permit (principal, action, resource)\nwhen {\n  context.args.subject == \"x\"\n};\n");
    assert_eq!((finding.line, finding.column), (3, 3), "{finding}");
}

#[test]
fn policies_are_checked_against_the_schema() {
    for org in [
        "permit (principal, action == Action::\"acme-mail:messages.burn\", resource);",
        "permit (principal, action == Action::\"unknown:messages.get\", resource);",
        "permit (principal == Robot::\"r\", action, resource);",
        "permit (principal, action, resource) when { resource.owner.domain == \"acme.example\" };",
        "permit (principal, action, resource) when { context.nothing };",
        "permit (principal, action, resource) when { context.time.hour == \"nine\" };",
        "permit (principal, action == Action::\"acme-mail:messages.send\", resource) when { context.args.to == \"a@b\" };",
    ] {
        let found = findings(org);
        assert!(
            found.iter().any(|finding| finding.severity == Severity::Error),
            "{org}"
        );
    }
}

#[test]
fn a_policy_that_can_never_match_is_a_warning() {
    for org in [
        "forbid (principal, action == Action::\"read\", resource);",
        "forbid (principal, action, resource) when { context.args has nothing };",
    ] {
        let report = check(&sources(org, PERMIT_ALL), &world().actions());
        assert!(report.ok, "{org}");
        assert_eq!(report.findings[0].severity, Severity::Warning, "{org}");
    }
}

#[test]
fn an_annotation_that_would_do_nothing_is_refused() {
    for org in [
        "@reson(\"x\") forbid (principal, action, resource);",
        "@modes(\"execute\") forbid (principal, action, resource);",
        "@escalate(\"user\") permit (principal, action, resource);",
    ] {
        assert!(only(org).fix.is_some(), "{org}");
    }
}

#[test]
fn an_escalate_that_no_approval_could_lift_is_refused() {
    let finding = only("@escalate(\"user\") forbid (principal, action, resource);");
    assert!(finding.message.contains("context.approvals"), "{finding}");
}

#[test]
fn templates_are_refused() {
    let finding = only("\npermit (principal == ?principal, action, resource);");
    assert_eq!(finding.line, 2);
}

#[test]
fn two_policies_of_one_name_are_refused() {
    let finding = only(&format!("@id(\"a\")\n{PERMIT_ALL}\n@id(\"a\")\n{PERMIT_ALL}"));
    assert_eq!(finding.line, 3, "{finding}");
}

#[test]
fn a_name_that_looks_like_a_number_cannot_hide_another_policy() {
    let finding = only(&format!("@id(\"2\")\n{PERMIT_ALL}\n{PERMIT_ALL}"));
    assert_eq!(finding.line, 3, "{finding}");
}

#[test]
fn two_files_of_one_name_are_refused() {
    let mut sources = sources(PERMIT_ALL, PERMIT_ALL);
    sources.org.push(PolicyText {
        name: "p.cedar".to_owned(),
        text: PERMIT_ALL.to_owned(),
    });
    assert!(!check(&sources, &world().actions()).ok);
}

#[test]
fn a_connector_named_like_a_category_is_refused() {
    let world = world();
    let mut actions = world.actions();
    let id = "admin".parse().unwrap();
    actions[0].id = &id;
    let report = check(&sources(PERMIT_ALL, PERMIT_ALL), &actions);
    assert_eq!(report.findings[0].file, "connector admin");
}

#[test]
fn every_error_of_every_file_is_reported_at_once() {
    let report = check(
        &sources("permit (", "@modes(\"x\") permit (principal, action, resource);"),
        &world().actions(),
    );
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
}

#[test]
fn a_report_lists_rules_with_their_place() {
    let report = check(
        &sources(&format!("// first\n@id(\"a\")\n{PERMIT_ALL}"), PERMIT_ALL),
        &world().actions(),
    );
    let rule = &report.rules[0];
    assert_eq!((rule.name.as_str(), rule.line), ("org/p.cedar#a", 2));
}
