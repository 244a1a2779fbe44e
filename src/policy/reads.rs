//! Which parts of the context a policy reads, found in its parsed form and not in its text.

use cedar_policy::Policy;
use serde_json::Value;

use super::limits::MAX_EXPRESSION_DEPTH;

/// The parts of the context a policy reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) args: bool,
    pub(super) approvals: bool,
    pub(super) claimed: bool,
    /// The context as a whole: compared, put into a record, chosen by `if`. Counts as reading everything.
    pub(super) whole: bool,
    /// Any part of the context at all, the whole among them.
    pub(super) context: bool,
}

/// Finds out what `policy` reads; `None` when its form is not known or too deep, which must count as everything.
pub(super) fn reads(policy: &Policy) -> Option<Reads> {
    let form = policy.to_json().ok()?;
    let mut reads = Reads::default();
    let mut open: Vec<(usize, &Value)> = vec![(0, form.get("conditions")?)];
    while let Some((depth, value)) = open.pop() {
        if depth > MAX_EXPRESSION_DEPTH {
            return None;
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (depth + 1, item))),
            Value::Object(members) => {
                if let Some(attribute) = context_attribute(value) {
                    reads.context = true;
                    match attribute {
                        "args" => reads.args = true,
                        "approvals" => reads.approvals = true,
                        "claimed" => reads.claimed = true,
                        _ => {}
                    }
                } else if members.get("Var").is_some_and(|name| name == "context") {
                    reads.context = true;
                    reads.whole = true;
                } else {
                    open.extend(members.values().map(|member| (depth + 1, member)));
                }
            }
            _ => {}
        }
    }
    Some(reads)
}

/// `context.a`, `context["a"]`, `context has a` and `context has a.b` → `a`.
fn context_attribute(form: &Value) -> Option<&str> {
    let access = form.get(".").or_else(|| form.get("has"))?;
    if access.get("left")?.get("Var")? != "context" {
        return None;
    }
    match access.get("attr")? {
        Value::String(attribute) => Some(attribute),
        Value::Array(path) => path.first()?.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(condition: &str) -> Reads {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        reads(&Policy::parse(None, text).unwrap()).unwrap()
    }

    #[test]
    fn every_way_to_read_the_claimed_context_is_seen() {
        for condition in [
            "context.claimed.contains({path: \"/a\", value: \"b\"})",
            "context[\"claimed\"].isEmpty()",
            "context has claimed",
            "context has claimed.a",
            "if context.live_session then context.claimed.isEmpty() else true",
            "[1, [context.claimed]].contains(1)",
            "{ a: { b: context.claimed } }.a.b.isEmpty()",
            "(context).claimed.isEmpty()",
        ] {
            assert!(of(condition).claimed, "{condition}");
        }
    }

    #[test]
    fn a_context_taken_as_a_whole_counts_as_everything() {
        for condition in [
            "{ a: context }.a.claimed.isEmpty()",
            "(if true then context else context).claimed.isEmpty()",
            "context == context",
            "[context].contains(context)",
        ] {
            assert!(of(condition).whole, "{condition}");
        }
    }

    #[test]
    fn words_in_texts_and_other_records_are_not_reads() {
        let reads = of("resource.label == \"context.claimed\" && { claimed: 1, args: 2 }.claimed == 1");
        assert_eq!(reads, Reads::default());
    }

    #[test]
    fn reading_arguments_and_approvals_is_seen() {
        let reads = of("context.args has q && context.approvals.contains(\"user\")");
        assert!(reads.args && reads.approvals && !reads.claimed && !reads.whole);
    }

    #[test]
    fn every_part_of_the_context_is_of_the_context() {
        for condition in [
            "context.args.q == \"a\"",
            "context.args has q",
            "context[\"time\"].hour == 12",
            "context.live_session",
            "context has admission_age_s",
            "context has args.q",
            "context.budgets.left.isEmpty()",
            "context.claimed.isEmpty()",
            "context.anything",
            "false && context.live_session",
            "true || context.live_session",
            "if principal.name == \"a\" then true else context.live_session",
            "[principal.name, context.args.q].contains(\"a\")",
            "{ a: { b: context.time } }.a.b.hour == 12",
            "!(context.live_session)",
            "-(context.time.hour) + 1 < 0",
            "context.args.q like \"a*\"",
            "resource.scopes.containsAny(context.approvals)",
            "context == context",
            "[context].isEmpty()",
            "{ \"a\": context } has a",
        ] {
            assert!(of(condition).context, "{condition}");
        }
        let both = Policy::parse(
            None,
            "permit (principal, action, resource) when { true } unless { context.live_session };",
        );
        assert!(reads(&both.unwrap()).unwrap().context);
        for condition in [
            "true",
            "resource.label == \"context\"",
            "resource has \"context\" && resource[\"context\"] == \"a\"",
            "{ \"context\": 1 }[\"context\"] == 1",
        ] {
            assert!(!of(condition).context, "{condition}");
        }
    }
}
