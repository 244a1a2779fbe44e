//! The filters of an entry list (protocol §9), parsed at the door.

use crate::domain::{AgentId, EntryId, UserId, connector::ConnectorId};

/// Which entries to list. Everything given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Only entries listed behind this one.
    pub after: Option<EntryId>,
    /// At most so many; absent: the route's default.
    pub limit: Option<u32>,
    /// Only this person's.
    pub user: Option<UserId>,
    /// Only this agent's.
    pub agent: Option<AgentId>,
    /// Only what agents did, or only what people and Postern itself did.
    pub kind: Option<ActorKind>,
    /// Only at this connector.
    pub connector: Option<ConnectorId>,
    /// Only with this outcome code.
    pub outcome: Option<String>,
}

/// Who acted. An entry is an agent's when its `agent` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorKind {
    /// A person, an admin key, or Postern itself.
    Human,
    /// An agent.
    Agent,
}

/// A parameter that is unknown, repeated, or holds what it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No filter has this name.
    #[error("no such filter; there are after, limit, user, agent, kind, connector and outcome")]
    Unknown,
    /// Given twice.
    #[error("filter `{name}` is given twice")]
    Repeated {
        /// Which one.
        name: &'static str,
    },
    /// Its value is not one.
    #[error("filter `{name}` has a value it cannot have")]
    Invalid {
        /// Which one.
        name: &'static str,
    },
}

impl EntryFilter {
    /// Parses decoded query parameters. An empty value counts as absent, as forms send it.
    ///
    /// # Errors
    /// Names the first parameter that is wrong.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            match name {
                "after" => set(&mut filter.after, "after", value, |text| text.parse().ok())?,
                "limit" => set(&mut filter.limit, "limit", value, |text| {
                    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
                })?,
                "user" => set(&mut filter.user, "user", value, |text| text.parse().ok())?,
                "agent" => set(&mut filter.agent, "agent", value, |text| text.parse().ok())?,
                "kind" => set(&mut filter.kind, "kind", value, |text| match text {
                    "human" => Some(ActorKind::Human),
                    "agent" => Some(ActorKind::Agent),
                    _ => None,
                })?,
                "connector" => set(&mut filter.connector, "connector", value, |text| {
                    text.parse().ok()
                })?,
                "outcome" => set(&mut filter.outcome, "outcome", value, |text| {
                    let code = text.len() <= 64
                        && text
                            .bytes()
                            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
                    code.then(|| text.to_owned())
                })?,
                _ => return Err(FilterError::Unknown),
            }
        }
        Ok(filter)
    }
}

fn set<T>(
    slot: &mut Option<T>,
    name: &'static str,
    value: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), FilterError> {
    if value.is_empty() {
        return Ok(());
    }
    let value = parse(value).ok_or(FilterError::Invalid { name })?;
    if slot.replace(value).is_some() {
        Err(FilterError::Repeated { name })
    } else {
        Ok(())
    }
}

const MAX_LIMIT: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let user = UserId::from_bytes([1; 16]);
        let text = user.to_string();
        let pairs = [
            ("user", text.as_str()),
            ("kind", "human"),
            ("outcome", "deny"),
            ("agent", ""),
            ("limit", "20"),
        ];
        let filter = EntryFilter {
            user: Some(user),
            kind: Some(ActorKind::Human),
            outcome: Some("deny".to_owned()),
            limit: Some(20),
            ..EntryFilter::default()
        };
        assert_eq!(EntryFilter::parse(pairs), Ok(filter));
    }

    #[test]
    fn what_cannot_be_a_filter_is_refused_by_name() {
        let invalid = |name| Err(FilterError::Invalid { name });
        assert_eq!(EntryFilter::parse([("users", "x")]), Err(FilterError::Unknown));
        assert_eq!(
            EntryFilter::parse([("user", "agt_00000000000000000000000000")]),
            invalid("user")
        );
        assert_eq!(EntryFilter::parse([("kind", "robot")]), invalid("kind"));
        assert_eq!(EntryFilter::parse([("limit", "0")]), invalid("limit"));
        assert_eq!(EntryFilter::parse([("outcome", "a' or 1")]), invalid("outcome"));
        let twice = EntryFilter::parse([("kind", "human"), ("kind", "agent")]);
        assert_eq!(twice, Err(FilterError::Repeated { name: "kind" }));
    }
}
