//! Hostile policy texts end in a finding, on the stack of an ordinary worker thread.

use super::fixture::{PERMIT_ALL, sources, world};
use crate::policy::check;

fn checked(condition: String) -> bool {
    let check = move || {
        let org = format!("permit (principal, action, resource) when {{ {condition} }};");
        check(&sources(&org, PERMIT_ALL), &world().actions()).ok
    };
    // Tokio's worker threads have 2 MiB.
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    worker.spawn(check).unwrap().join().unwrap()
}

#[test]
fn an_expression_as_large_as_allowed_is_accepted() {
    let terms = vec!["true"; 280].join(" && ");
    assert!(checked(terms));
}

#[test]
fn a_long_chain_is_refused() {
    assert!(!checked(vec!["true"; 600].join("&&")));
}

#[test]
fn a_long_path_is_refused() {
    assert!(!checked(format!("context{}", ".a".repeat(4_000))));
}

#[test]
fn a_long_chain_of_else_is_refused() {
    assert!(!checked(format!(
        "{} true",
        "if true then true else ".repeat(300)
    )));
}

#[test]
fn deep_brackets_are_refused() {
    assert!(!checked(format!(
        "{}true{}",
        "(".repeat(3_000),
        ")".repeat(3_000)
    )));
}

#[test]
fn many_records_inside_each_other_are_refused() {
    assert!(!checked(format!(
        "{}1{} == 1",
        "{a:".repeat(1_000),
        "}".repeat(1_000)
    )));
}
