//! One policy of a file, as the engine knows it: its name, its scope, its annotations, what it reads.

use std::str::FromStr;

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy};

use super::{
    evaluation::{Limit, Terms},
    facts::ApprovalKind,
    reads::Reads,
    reason,
    schema::Tool,
};
use crate::domain::{Mode, ModeSet, Time, text::is_unseen};

/// What is known about one policy beyond its Cedar form.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// `layer/file#rule`, or the id of a delegation.
    pub(super) name: String,
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) effect: Effect,
    pub(super) action: ActionConstraint,
    pub(super) reads: Reads,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) escalate: Option<ApprovalKind>,
    pub(super) terms: Terms,
    /// When a delegation ends by itself.
    pub(super) expires_at: Option<Time>,
}

impl Rule {
    /// Whether its scope covers the tool.
    ///
    /// `http.request` is permitted only by a permit that names it; every forbid on the connector applies to it.
    pub(super) fn applies_to(&self, tool: &Tool) -> bool {
        let named = |uids: &[EntityUid]| uids.contains(&tool.uid);
        match (&self.action, self.effect, tool.category) {
            (ActionConstraint::Eq(uid), ..) => *uid == tool.uid,
            (ActionConstraint::In(uids), Effect::Permit, None) => named(uids),
            (ActionConstraint::In(uids), ..) => {
                named(uids) || uids.iter().any(|uid| tool.groups.contains(uid))
            }
            (ActionConstraint::Any, Effect::Permit, None) => false,
            (ActionConstraint::Any, ..) => true,
        }
    }

    /// Whether it reads the tool's arguments.
    pub(super) fn reads_args_of(&self, tool: &Tool) -> bool {
        (self.reads.args || self.reads.whole) && self.applies_to(tool)
    }

    /// Whether Cedar may read the context where it judges the tool by this. That is asked of the scope as Cedar takes it: an
    /// open permit is evaluated for `http.request`, too, and can fail, though it does not apply.
    pub(super) fn reads_context_of(&self, tool: &Tool) -> bool {
        let in_scope = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => *uid == tool.uid,
            ActionConstraint::In(uids) => uids
                .iter()
                .any(|uid| *uid == tool.uid || tool.groups.contains(uid)),
        };
        self.reads.context && in_scope
    }
}

/// The annotations of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) id: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) escalate: Option<ApprovalKind>,
    pub(super) modes: Option<ModeSet>,
    pub(super) max_ttl_s: Option<u64>,
    /// Count and window in seconds.
    pub(super) limits: Vec<(u64, u64)>,
}

/// An annotation that is refused: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String, pub(super) String);

impl Annotations {
    /// Reads the annotations strictly: an unknown name is more often a slip than a note.
    pub(super) fn read(policy: &Policy) -> Result<Self, Vec<Refused>> {
        let mut read = Self {
            id: None,
            reason: None,
            message: None,
            escalate: None,
            modes: None,
            max_ttl_s: None,
            limits: Vec::new(),
        };
        let mut refused = Vec::new();
        for (name, value) in policy.annotations() {
            let effect = policy.effect();
            if let Err(problem) = read.take(name, value, effect) {
                refused.push(problem);
            }
        }
        if refused.is_empty() {
            Ok(read)
        } else {
            refused.sort_by(|left, right| left.0.cmp(&right.0));
            Err(refused)
        }
    }

    fn take(&mut self, name: &str, value: &str, effect: Effect) -> Result<(), Refused> {
        let of_permit = matches!(name, "modes" | "max_ttl" | "limit");
        if of_permit && effect == Effect::Forbid {
            return refuse(
                format!("`@{name}` on a forbid has no effect"),
                "put it on a permit",
            );
        }
        if name == "escalate" && effect == Effect::Permit {
            return refuse(
                "`@escalate` on a permit has no effect".to_owned(),
                "write a forbid with `unless { context.approvals.contains(…) }`",
            );
        }
        match name {
            "id" => {
                self.id = Some(checked(
                    name,
                    value,
                    is_name,
                    "use letters, digits, `.`, `_` and `-`",
                )?)
            }
            "reason" => {
                let fix = "use 1 to 64 of a-z, 0-9 and _, and none of the engine's own codes";
                self.reason = Some(checked(name, value, is_reason, fix)?);
            }
            "message" => {
                let fix = "use one line of at most 300 characters";
                self.message = Some(checked(name, value, is_message, fix)?);
            }
            "escalate" => {
                let fix = "use `user`, `four_eyes` or `four_eyes:<group>`";
                self.escalate = Some(parsed(name, value, |text| text.parse().ok(), fix)?);
            }
            "modes" => {
                let fix = "list some of execute, handle, token, raw, with commas";
                self.modes = Some(parsed(name, value, modes, fix)?);
            }
            "max_ttl" => {
                let fix = "write seconds, or a number with s, m or h; at most 24h";
                self.max_ttl_s = Some(parsed(name, value, duration_s, fix)?);
            }
            "limit" => {
                let fix = "write a count and a window, as in \"20/h\" or \"5/m,100/d\"";
                self.limits = parsed(name, value, limits, fix)?;
            }
            "description" => {}
            _ => {
                return refuse(
                    format!("`@{name}` is not an annotation Postern knows"),
                    "use id, description, reason, message, escalate, modes, max_ttl or limit",
                );
            }
        }
        Ok(())
    }

    /// What a permit with these annotations grants; what is not said is the default, never more.
    pub(super) fn terms(&self, rule: &str) -> Terms {
        Terms {
            modes: self.modes.unwrap_or(ModeSet::DEFAULT),
            max_ttl_s: self.max_ttl_s,
            limits: self
                .limits
                .iter()
                .map(|(count, window_s)| Limit {
                    rule: rule.to_owned(),
                    count: *count,
                    window_s: *window_s,
                })
                .collect(),
        }
    }
}

fn refuse(problem: String, fix: &str) -> Result<(), Refused> {
    Err(Refused(problem, fix.to_owned()))
}

fn checked(name: &str, value: &str, fits: fn(&str) -> bool, fix: &str) -> Result<String, Refused> {
    parsed(name, value, |text| fits(text).then(|| text.to_owned()), fix)
}

fn parsed<T>(name: &str, value: &str, parse: impl Fn(&str) -> Option<T>, fix: &str) -> Result<T, Refused> {
    parse(value).ok_or_else(|| Refused(format!("the value of `@{name}` is not valid"), fix.to_owned()))
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

fn is_reason(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && !reason::RESERVED.contains(&text)
}

// SECURITY: the message reaches a model; hidden characters in it would too.
fn is_message(text: &str) -> bool {
    (1..=300).contains(&text.chars().count()) && !text.chars().any(is_unseen)
}

fn modes(text: &str) -> Option<ModeSet> {
    text.split(',')
        .map(|mode| Mode::from_str(mode.trim()).ok())
        .collect()
}

fn duration_s(text: &str) -> Option<u64> {
    let (digits, unit_s) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) if text.ends_with('h') => (digits, 3_600),
        Some(digits) if text.ends_with('m') => (digits, 60),
        Some(digits) => (digits, 1),
        None => (text, 1),
    };
    let seconds = number(digits)?.checked_mul(unit_s)?;
    (1..=86_400).contains(&seconds).then_some(seconds)
}

fn limits(text: &str) -> Option<Vec<(u64, u64)>> {
    text.split(',')
        .map(|limit| {
            let (count, window) = limit.trim().split_once('/')?;
            let window_s = match window {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                "d" => 86_400,
                _ => return None,
            };
            Some((number(count)?, window_s))
        })
        .collect()
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Annotations, Vec<Refused>> {
        Annotations::read(&Policy::parse(None, text).unwrap())
    }

    #[test]
    fn annotations_are_read() {
        let read = read(
            r#"@id("a.b") @reason("ok_1") @modes("token, execute") @max_ttl("5m") @limit("20/h,3/s")
               permit (principal, action, resource);"#,
        )
        .unwrap();
        assert_eq!(read.modes, Some(ModeSet::from_iter([Mode::Execute, Mode::Token])));
        assert_eq!(read.max_ttl_s, Some(300));
        assert_eq!(read.limits, [(20, 3_600), (3, 1)]);
    }

    #[test]
    fn a_slip_in_an_annotation_is_refused() {
        for annotation in [
            r#"@reson("a")"#,
            r#"@reason("Has Spaces")"#,
            r#"@reason("policy_error")"#,
            r#"@modes("")"#,
            r#"@modes("execute,everything")"#,
            r#"@max_ttl("0")"#,
            r#"@max_ttl("25h")"#,
            r#"@max_ttl("+5")"#,
            r#"@max_ttl("m")"#,
            r#"@limit("20/w")"#,
            r#"@limit("/h")"#,
            r#"@limit("-1/h")"#,
            r#"@message("two\nlines")"#,
            "@message(\"hidden \u{202e}\")",
            "@message(\"hidden \u{fe0f}\")",
            r#"@id("a b")"#,
            r#"@escalate("user")"#,
            "@modes",
        ] {
            let text = format!("{annotation} permit (principal, action, resource);");
            assert!(read(&text).is_err(), "{annotation}");
        }
    }

    #[test]
    fn terms_on_a_forbid_are_refused() {
        for annotation in [
            r#"@modes("execute")"#,
            r#"@max_ttl("5")"#,
            r#"@limit("1/h")"#,
            r#"@escalate("admin")"#,
            r#"@escalate("four_eyes:")"#,
        ] {
            let text = format!("{annotation} forbid (principal, action, resource);");
            assert!(read(&text).is_err(), "{annotation}");
        }
    }
}
