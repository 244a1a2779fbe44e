//! The codes of protocol §6: status, title and the words of their page. The one map to HTTP status codes.

use axum::http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal, $meaning:literal, $remedy:literal;)*) => {
        /// A stable code of the contract; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of protocol §6.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status. Nothing else in this program chooses one for a refusal.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// RFC 9457 §3.1.3: a short summary that does not change from occurrence to occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The words of `/problems/<code>`.
            #[must_use]
            pub fn help(self) -> Help {
                match self { $(Self::$name => Help { title: $title, meaning: $meaning, remedy: $remedy },)* }
            }
        }
    };
}

/// What a person is told about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Help {
    /// The summary.
    pub title: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

codes! {
    /// A human has to say yes first.
    ApprovalPending = "approval_pending", ACCEPTED, "Waiting for a person's approval",
        "The policy allows this action only after a person has approved it. Nothing has been released yet.",
        "Wait at the address in `Location`, or show the person the approval link. Repeat the same request once it is approved.";
    /// The request is not of the agreed form.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is not valid",
        "The request could not be read as the protocol describes it: its form, a member or its content type is wrong, or it names an unknown connector or tool.",
        "Correct what `errors` points at. Nothing was evaluated, sent or released.";
    /// The arguments do not fit the tool.
    InvalidArgs = "invalid_args", BAD_REQUEST, "The arguments do not fit the tool",
        "The arguments were read but do not satisfy the tool's schema: a field is unknown, missing or of the wrong type or format.",
        "Correct what `errors` points at, using the tool's schema. Nothing was sent or released.";
    /// The caller did not prove who they are.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Not authenticated",
        "The request carried no valid credential. The answer is the same for every cause, on purpose.",
        "Check that the API key is complete, of the right kind, and still active, or log in again.";
    /// Policy, or a missing permission, says no.
    Denied = "denied", FORBIDDEN, "Not allowed",
        "The organisation's policy, the person's delegation or the agent's own limits do not allow this. Nothing was released.",
        "Read `reason`. Change the action, or ask the person or an administrator to allow it. Repeating it will not help.";
    /// The presented decision does not hold.
    DecisionRejected = "decision_rejected", FORBIDDEN, "The decision was not accepted",
        "A signed decision was presented, but it does not hold for this request. Nothing was released.",
        "Read `decision_error`, then ask for a new decision for exactly this action.";
    /// There is nothing by that name for this caller.
    NotFound = "not_found", NOT_FOUND, "Not found",
        "There is nothing at this address that this caller may see.",
        "Check the address and the id. Ids of another organisation are not found either.";
    /// The person has not connected this app.
    ConnectionRequired = "connection_required", CONFLICT, "The person has not connected this app yet",
        "The person has no grant for this connector, so there is nothing to act with.",
        "Show the person the link in `connect.url`. When they have connected, repeat the request.";
    /// The grant has ended at the provider.
    ReconnectRequired = "reconnect_required", CONFLICT, "The connection has to be renewed",
        "The provider no longer accepts this grant. Only the person can renew it.",
        "Show the person the link in `connect.url`. The grant keeps its id when they reconnect the same account.";
    /// Several accounts fit.
    AccountSelectionRequired = "account_selection_required", CONFLICT, "Several accounts fit",
        "The person has connected more than one account of this app, and the request names none.",
        "Choose one of `accounts` and name it in `account` or `grant`.";
    /// The decision has been used.
    DecisionSpent = "decision_spent", CONFLICT, "The decision has already been used",
        "A decision or approval releases one action once. This one has been spent by the entry in `entry_id`.",
        "Ask for a new decision if the action is to happen again.";
    /// The idempotency key was used with another body.
    IdempotencyConflict = "idempotency_conflict", CONFLICT, "The idempotency key belongs to another request",
        "The same idempotency key was used within 24 hours with a different body.",
        "Use a new key for a new request, or repeat the first request unchanged.";
    /// The same request has been released before.
    AlreadyReleased = "already_released", CONFLICT, "This request was already carried out",
        "A request with this idempotency key was released before. Its answer is not kept, so it cannot be given again.",
        "Look up `entry_id` to see what happened. Do not repeat the action unless it is meant to happen twice.";
    /// The first call of this key is still running.
    InProgress = "in_progress", CONFLICT, "The first request is still running",
        "Another request with the same idempotency key has not finished yet.",
        "Wait a moment, then repeat the same request.";
    /// The grant has been ended.
    Revoked = "revoked", GONE, "The grant has been revoked",
        "The grant was ended by the person or an administrator. It never comes back.",
        "If it is still wanted, the person can connect again; that makes a new grant.";
    /// The mode asked for is not available.
    ModeUnavailable = "mode_unavailable", UNPROCESSABLE_ENTITY, "This mode is not available",
        "Policy, connector or caller do not allow the mode that was asked for.",
        "Use one of `modes`.";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "This caller has made more requests than allowed in a short time.",
        "Wait for the time in `Retry-After`, then go on more slowly.";
    /// The budget is used up.
    BudgetExhausted = "budget_exhausted", TOO_MANY_REQUESTS, "The budget is used up",
        "A policy limits how often this may happen, and the limit has been reached.",
        "Wait for the time in `Retry-After`, or ask an administrator to raise the limit.";
    /// The organisation's key cannot be used.
    KeyUnavailable = "key_unavailable", SERVICE_UNAVAILABLE, "The organisation's key is not available",
        "The key service that holds the organisation's key did not answer or refused. Nothing was sent or released.",
        "Repeat the request after `Retry-After`. An administrator should check the key service if this lasts.";
    /// The provider cannot be reached.
    ProviderUnavailable = "provider_unavailable", SERVICE_UNAVAILABLE, "The provider is not available",
        "The app behind this connector could not be reached or is failing. Nothing was released.",
        "Repeat the request after `Retry-After`.";
    /// The database cannot be used.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The store is not available",
        "The database did not answer in time. Without it nothing is sent or released.",
        "Repeat the request after `Retry-After`. An operator should check the database if this lasts.";
    /// The log and the database disagree.
    Sealed = "sealed", SERVICE_UNAVAILABLE, "This installation is sealed",
        "The database is older than the last signed checkpoint, or its checkpoint is missing. Until an administrator has recovered it, nothing is released.",
        "An administrator has to run the recovery. See the operator's guide.";
    /// Sent, or given to the database to commit, but nobody knows with what result.
    OutcomeUnknown = "outcome_unknown", GATEWAY_TIMEOUT, "The outcome is not known",
        "The action may have been carried out, but no answer arrived in time, the database did not confirm it, or a fault of this service stopped it half-way. It is never repeated automatically.",
        "Check at the provider, or look up `entry_id` or what was to be changed, before asking again. A revocation may be repeated safely.";
    /// A fault of this program.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong here",
        "This is a fault of this service. The operator's log has the cause under the request id.",
        "Repeat the request later. If it stays, give the operator the request id.";
}

impl Code {
    /// The code of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// RFC 9457 §3.1.1: the problem type, a relative reference.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("/problems/{}", self.as_str())
    }

    /// How long a client should wait by default, in seconds; `None` when waiting does not help.
    #[must_use]
    pub fn default_retry_after_s(self) -> Option<u64> {
        match self {
            Self::ApprovalPending
            | Self::KeyUnavailable
            | Self::ProviderUnavailable
            | Self::StoreUnavailable => Some(5),
            Self::Sealed | Self::BudgetExhausted => Some(60),
            Self::RateLimited | Self::InProgress => Some(1),
            _ => None,
        }
    }
}
