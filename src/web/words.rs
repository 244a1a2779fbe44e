//! Plain words for codes, in one place.

use crate::domain::{connector::Category, grant::ReconnectReason};

/// `1 connection`, `1,204 connections`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

/// `1204` → `1,204`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A stable code as words: `recipient_outside_company` → `recipient outside company`.
#[must_use]
pub fn code_words(code: &str) -> String {
    code.replace(['_', '-'], " ")
}

/// The name of a category on a page.
#[must_use]
pub fn category(category: Category) -> &'static str {
    match category {
        Category::Read => "Read",
        Category::Write => "Write",
        Category::Destructive => "Delete",
        Category::Admin => "Administer",
    }
}

/// What a category lets an agent do.
#[must_use]
pub fn category_meaning(category: Category) -> &'static str {
    match category {
        Category::Read => "Look at things: list, search, open.",
        Category::Write => "Add or change things: send, post, create.",
        Category::Destructive => "Remove things that cannot be brought back.",
        Category::Admin => "Change who may do what.",
    }
}

/// Why a connection has to be made again.
#[must_use]
pub fn reconnect_reason(reason: ReconnectReason) -> &'static str {
    match reason {
        ReconnectReason::RefreshTokenDead => "The app ended this access. Reconnect to give it again.",
        ReconnectReason::RotationLost => {
            "The app renewed this access, but its answer was lost on the way. Reconnect to give it again."
        }
        ReconnectReason::BindingChanged => {
            "The addresses of this app have changed since you agreed. Look at them and agree again."
        }
        ReconnectReason::ConsentRequired => "The app wants to hear your consent again.",
        ReconnectReason::Expired => "This access has ended, and the app gave no way to renew it.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_words() {
        assert_eq!(count(1, "connection", "connections"), "1 connection");
        assert_eq!(count(0, "connection", "connections"), "0 connections");
        assert_eq!(
            count(1_234_567, "connection", "connections"),
            "1,234,567 connections"
        );
        assert_eq!(thousands(100), "100");
    }
}
