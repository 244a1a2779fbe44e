//! What each problem code of protocol §6 means and what to do about it.

/// The words of one problem code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemDoc {
    /// The stable code.
    pub code: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// In a few words.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the caller should do.
    pub remedy: &'static str,
    /// The extra members of the problem document.
    pub members: &'static [&'static str],
}

/// The words of `code`, if there is such a code.
#[must_use]
pub fn problem_doc(code: &str) -> Option<&'static ProblemDoc> {
    PROBLEMS.iter().find(|doc| doc.code == code)
}

const fn doc(
    code: &'static str,
    status: u16,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
    members: &'static [&'static str],
) -> ProblemDoc {
    ProblemDoc {
        code,
        status,
        title,
        meaning,
        remedy,
        members,
    }
}

/// All codes, in the order of protocol §6.
pub const PROBLEMS: &[ProblemDoc] = &[
    doc(
        "approval_pending",
        202,
        "A human has to say yes",
        "The action needs a person’s approval before it may run. Nothing was sent or released.",
        "Wait for the approval, then send the same request again with the same idempotency key.",
        &["approval", "Location", "Retry-After"],
    ),
    doc(
        "invalid_request",
        400,
        "The request has the wrong shape",
        "The body is not strict JSON, a member is missing or unknown, or the connector or tool does not exist.",
        "Correct the request; each item of errors points at one member.",
        &["errors"],
    ),
    doc(
        "invalid_args",
        400,
        "The arguments do not fit the tool",
        "An argument is missing, unknown or of the wrong type or format for this tool.",
        "Correct the arguments; each item of errors points at one of them.",
        &["errors"],
    ),
    doc(
        "unauthenticated",
        401,
        "The caller is not known",
        "No valid API key or session came with the request. The same answer is given for every cause.",
        "Send a valid key in the Authorization header.",
        &[],
    ),
    doc(
        "denied",
        403,
        "Policy says no",
        "The organisation’s policy, the person’s delegation or the agent’s capability does not allow this action.",
        "Do not try the same action again. The reason may be shown to a model and to the person.",
        &["reason", "model_message", "decision_id"],
    ),
    doc(
        "decision_rejected",
        403,
        "The decision was not accepted",
        "The signed decision that came with the request did not pass a check: it is expired, for another action, by an unknown key, and so on.",
        "Obtain a new decision for exactly this action.",
        &["decision_error"],
    ),
    doc(
        "not_found",
        404,
        "There is no such thing",
        "The id does not exist, or belongs to somebody else; the answer is the same.",
        "Check the id.",
        &[],
    ),
    doc(
        "connection_required",
        409,
        "The person has not connected this app",
        "There is no connection of this person to the app that the action needs.",
        "Give the person the link. Ask again when the session is completed.",
        &["connect"],
    ),
    doc(
        "reconnect_required",
        409,
        "The person has to connect again",
        "The connection exists, but the app no longer accepts it, or the organisation has to ask again.",
        "Give the person the link. Ask again when the session is completed.",
        &["connect"],
    ),
    doc(
        "account_selection_required",
        409,
        "Several accounts fit",
        "The person has connected more than one account of this app, and the request does not say which.",
        "Ask again and name the grant or the account.",
        &["accounts"],
    ),
    doc(
        "decision_spent",
        409,
        "The decision was used before",
        "A decision allows one release. This one has had its release.",
        "Obtain a new decision.",
        &["entry_id"],
    ),
    doc(
        "idempotency_conflict",
        409,
        "The idempotency key was used for another request",
        "The same key came with a different body within 24 hours.",
        "Use a new key for a new request.",
        &["entry_id"],
    ),
    doc(
        "already_released",
        409,
        "This request was answered before",
        "A request with this idempotency key was released. What was released is not kept and cannot be given again.",
        "Read the entry to learn how it came out.",
        &["entry_id", "status"],
    ),
    doc(
        "in_progress",
        409,
        "The first request is still running",
        "A request with this idempotency key is under way.",
        "Wait a little and ask again.",
        &["entry_id"],
    ),
    doc(
        "revoked",
        410,
        "The connection was ended",
        "The person or an admin revoked it. A revoked connection never comes back.",
        "Stop using it. Connecting again makes a new connection.",
        &["grant", "at"],
    ),
    doc(
        "mode_unavailable",
        422,
        "Not in this mode",
        "Policy, connector or caller do not allow the mode that was asked for.",
        "Ask for one of the modes that are named, best of all execute.",
        &["modes"],
    ),
    doc(
        "rate_limited",
        429,
        "Too many requests",
        "The agent or the organisation sent more requests than it may.",
        "Wait as long as Retry-After says.",
        &["Retry-After"],
    ),
    doc(
        "budget_exhausted",
        429,
        "The budget is used up",
        "Policy allows this action only so many times, and the number is reached.",
        "Wait as long as Retry-After says.",
        &["Retry-After"],
    ),
    doc(
        "key_unavailable",
        503,
        "The organisation’s key cannot be reached",
        "The key service that holds the organisation’s key does not answer or refuses. Nothing was sent or released.",
        "Try again later; if it lasts, tell an admin.",
        &["Retry-After"],
    ),
    doc(
        "provider_unavailable",
        503,
        "The app does not answer",
        "The app could not be reached, or asked to be left alone for a while. Nothing was sent or released.",
        "Wait as long as Retry-After says.",
        &["Retry-After"],
    ),
    doc(
        "store_unavailable",
        503,
        "The database cannot be reached",
        "Without its database Postern cannot record a release, so it makes none. Nothing was sent or released.",
        "Try again later.",
        &["Retry-After"],
    ),
    doc(
        "sealed",
        503,
        "Postern is sealed",
        "The key that opens the store has not been given yet. Nothing was sent or released.",
        "An operator has to unseal it.",
        &["Retry-After"],
    ),
    doc(
        "outcome_unknown",
        504,
        "Sent, but no answer came",
        "The call was sent to the app and its answer was lost. It may or may not have taken effect. Postern never repeats it.",
        "Look at the app before doing it again.",
        &["entry_id"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_once() {
        for doc in PROBLEMS {
            assert_eq!(
                PROBLEMS.iter().filter(|other| other.code == doc.code).count(),
                1,
                "{}",
                doc.code
            );
            assert!(
                doc.code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')),
                "{}",
                doc.code
            );
        }
        assert_eq!(PROBLEMS.len(), 23);
    }

    #[test]
    fn an_unknown_code_has_no_words() {
        assert_eq!(problem_doc("nonsense"), None);
    }
}
