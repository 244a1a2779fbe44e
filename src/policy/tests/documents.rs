//! What people read is true: the guide's examples compile, its codes exist, the demo is free of findings.

use super::fixture::{sources, world};
use crate::policy::{CompiledPolicies, check, demo, reason, schema_text};

const GUIDE: &str = include_str!("../../../docs/policy.md");

#[test]
fn every_example_of_the_guide_compiles_without_a_finding() {
    let examples: Vec<&str> = GUIDE
        .split("```cedar\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 5, "the examples are found");
    for example in examples {
        let report = check(&sources(example, example), &world().actions());
        assert!(report.findings.is_empty(), "{example}\n{:?}", report.findings);
    }
}

#[test]
fn the_guide_explains_every_code_of_the_engine() {
    for code in reason::RESERVED {
        assert!(GUIDE.contains(&format!("| `{code}` |")), "{code}");
    }
}

#[test]
fn the_demo_is_free_of_findings() {
    let report = check(&demo::sources(), &world().actions());
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn the_schema_can_be_shown() {
    let text = schema_text(&world().actions()).unwrap();
    assert!(text.contains("\"acme-mail:messages.send\" in"), "{text}");
    assert!(text.contains("entity Grant in [User]"), "{text}");
}

#[test]
fn the_digest_covers_names_layers_and_texts() {
    let world = world();
    let digest = |org: &str, agent: &str| {
        let compiled = CompiledPolicies::compile(&sources(org, agent), world.vocabulary()).unwrap();
        compiled.reference().digest.clone()
    };
    let one = "permit (principal, action, resource);";
    let all = [digest("", ""), digest(one, ""), digest("", one), digest(one, one)];
    for (number, left) in all.iter().enumerate() {
        assert!(left.starts_with("sha256:") && left.len() == 71);
        assert!(all.iter().skip(number + 1).all(|right| right != left));
    }
    let mut renamed = sources(one, one);
    renamed.org[0].name = "q.cedar".to_owned();
    let renamed = CompiledPolicies::compile(&renamed, world.vocabulary()).unwrap();
    assert_ne!(renamed.reference().digest, all[3]);
}
