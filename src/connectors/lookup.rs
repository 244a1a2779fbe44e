//! Look-ups by dotted path. The only language a connector file has: no scripting.

use serde_json::Value;

use crate::domain::connector::SuccessRule;

/// The value at a dotted path; the empty path is the value itself.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    path.split('.').try_fold(value, |value, member| match value {
        Value::Object(members) => members.get(member),
        Value::Array(items) => items.get(member.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The text at a dotted path: a string that is not empty, or an integer as digits.
pub(super) fn text(value: &Value, path: &str) -> Option<String> {
    match at(value, path)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// The texts at paths joined with `/`, joined with `/`. All must be there, and none may hold a `/` of its own when
/// there are several: `a/b` and `c` must not read like `a` and `b/c`.
pub(super) fn joined(value: &Value, paths: &str) -> Option<String> {
    if !paths.contains('/') {
        return text(value, paths);
    }
    let parts = paths
        .split('/')
        .map(|path| text(value, path))
        .collect::<Option<Vec<_>>>()?;
    (!parts.iter().any(|part| part.contains('/'))).then(|| parts.join("/"))
}

/// Takes the string at a dotted path out, so that no copy stays behind.
pub(super) fn take(value: &mut Value, path: &str) -> Option<String> {
    let slot = path
        .split('.')
        .try_fold(value, |value, member| value.as_object_mut()?.get_mut(member))?;
    match slot.take() {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Whether the rule holds; without one it does.
pub(super) fn succeeds(rule: Option<&SuccessRule>, value: &Value) -> bool {
    rule.is_none_or(|rule| at(value, &rule.path) == Some(&rule.equals))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_reach_members_and_items() {
        let value = json!({"a": {"b": [{"c": 7}]}, "s": "x", "e": "", "f": 1.5});
        assert_eq!(text(&value, "a.b.0.c").as_deref(), Some("7"));
        assert_eq!(text(&value, "s").as_deref(), Some("x"));
        for path in ["e", "f", "a", "a.b.1", "a.b.x", "s.x", "none"] {
            assert_eq!(text(&value, path), None, "{path}");
        }
    }

    #[test]
    fn joined_paths_need_every_part_and_stay_unambiguous() {
        let value = json!({"t": "T1", "u": "U1", "odd": "a/b"});
        assert_eq!(joined(&value, "t/u").as_deref(), Some("T1/U1"));
        assert_eq!(joined(&value, "t/none"), None);
        assert_eq!(joined(&value, "t/odd"), None);
        assert_eq!(joined(&value, "odd").as_deref(), Some("a/b"));
    }

    #[test]
    fn taking_leaves_nothing_behind() {
        let mut value = json!({"a": {"token": "secret"}});
        assert_eq!(take(&mut value, "a.token").as_deref(), Some("secret"));
        assert!(!value.to_string().contains("secret"));
    }
}
