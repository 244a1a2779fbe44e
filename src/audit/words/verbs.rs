//! Small English: titles of tools in the past tense, codes as words.

/// "Send a message" → "sent a message"; the first word is a verb.
pub(super) fn past_tense(title: &str) -> String {
    let title = lower_first(title);
    let (verb, rest) = title
        .split_once(' ')
        .map_or((title.as_str(), ""), |(verb, rest)| (verb, rest));
    let past = match IRREGULAR.iter().find(|(present, _)| *present == verb) {
        Some((_, past)) => (*past).to_owned(),
        None => regular(verb),
    };
    if rest.is_empty() {
        past
    } else {
        format!("{past} {rest}")
    }
}

/// "Send a message" → "send a message"; words in capitals stay.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// `recipient_outside_company` → "recipient outside the company".
pub(super) fn in_words(code: &str) -> String {
    match CODES.iter().find(|(known, _)| *known == code) {
        Some((_, words)) => (*words).to_owned(),
        None => code.replace('_', " "),
    }
}

fn regular(verb: &str) -> String {
    let vowel = |c: char| matches!(c, 'a' | 'e' | 'i' | 'o' | 'u');
    match verb.strip_suffix('y') {
        _ if verb.ends_with('e') => format!("{verb}d"),
        Some(stem) if !stem.ends_with(vowel) => format!("{stem}ied"),
        _ => format!("{verb}ed"),
    }
}

const IRREGULAR: [(&str, &str); 18] = [
    ("find", "found"),
    ("forward", "forwarded"),
    ("get", "got"),
    ("give", "gave"),
    ("hide", "hid"),
    ("leave", "left"),
    ("make", "made"),
    ("pin", "pinned"),
    ("put", "put"),
    ("read", "read"),
    ("run", "ran"),
    ("see", "saw"),
    ("send", "sent"),
    ("set", "set"),
    ("submit", "submitted"),
    ("take", "took"),
    ("undo", "undid"),
    ("write", "wrote"),
];

const CODES: [(&str, &str); 10] = [
    ("recipient_outside_company", "recipient outside the company"),
    ("approval_required", "a person has to approve it"),
    ("no_permit", "no rule allows it"),
    ("no_delegation", "the person has not allowed this agent to do it"),
    ("not_delegated", "the person has not allowed this agent to do it"),
    ("not_capable", "the agent was not made for it"),
    ("policy_error", "a rule could not be evaluated"),
    ("invalid_grant", "the provider no longer accepts the grant"),
    ("receipt_expired", "it came too late"),
    ("epoch_changed", "something was revoked meanwhile"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_the_past() {
        for (title, past) in [
            ("Send a message", "sent a message"),
            ("Read messages", "read messages"),
            ("List messages", "listed messages"),
            ("Delete a message", "deleted a message"),
            ("Reply to a thread", "replied to a thread"),
            ("Copy a file", "copied a file"),
            ("use messages.list", "used messages.list"),
            ("play", "played"),
        ] {
            assert_eq!(past_tense(title), past);
        }
        assert_eq!(lower_first("HTTP request"), "HTTP request");
    }
}
