//! Hostile policy texts end in a finding, on the stack of an ordinary worker thread.

use super::fixture::{PERMIT_ALL, get, sources, world};
use crate::{domain::decision::Outcome, policy::check};

fn text(condition: &str) -> String {
    format!("permit (principal, action, resource) when {{ {condition} }};")
}

/// Tokio's worker threads have 2 MiB.
fn on_a_worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    worker.spawn(work).unwrap().join().unwrap()
}

fn checked(condition: String) -> bool {
    on_a_worker(move || check(&sources(&text(&condition), PERMIT_ALL), &world().actions()).ok)
}

/// `terms` additions, each deeper than the one before; Cedar folds what is constant, so these are not.
fn sum(terms: usize) -> String {
    format!("context.time.hour{} > 0", " + 1".repeat(terms))
}

#[test]
fn the_largest_expression_can_be_evaluated_on_a_worker() {
    let org = text(&sum(29));
    let outcome = on_a_worker(move || world().ask(&org, PERMIT_ALL, &get()).outcome);
    assert_eq!(outcome, Outcome::Allow);
}

#[test]
fn a_deep_expression_is_refused() {
    assert!(!checked(sum(40)));
}

#[test]
fn a_long_chain_is_refused() {
    assert!(!checked(["context.live_session"; 300].join("&&")));
}

#[test]
fn a_long_chain_that_folds_to_nothing_is_refused_too() {
    assert!(!checked(["true"; 1_000].join("&&")));
}

#[test]
fn a_wide_expression_is_refused() {
    let set = ["context.time.hour"; 300].join(",");
    assert!(!checked(format!("[{set}].contains(1)")));
}

#[test]
fn a_long_list_is_accepted() {
    let list: Vec<String> = (0..400).map(|number| format!("\"{number}\"")).collect();
    assert!(checked(format!("[{}].contains(principal.name)", list.join(","))));
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
