//! What happened: people see their own entries, admins those of the whole org.

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use url::form_urlencoded;

use super::{
    Pages,
    answer::page,
    entries_view,
    failure::Failure,
    session::{Id, Person, Session},
    words,
};
use crate::{
    domain::EntryId,
    flows::{
        Deps, audit,
        oversight::{self, Roster},
        telling::{self, Told},
    },
    store::EntryFilter,
    web::{
        Shown,
        pages::activity::{ActivityFilters, ActivityPage, EntryPage},
        parts::Choice,
    },
};

/// `GET /activity`.
pub(super) async fn list(
    State(pages): State<Pages>,
    Person(person): Person,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let everyone = person.is_admin();
    let asked = Asked::parse(query.as_deref().unwrap_or_default()).map_err(Failure::bad_request)?;
    let org = person.org.id;
    let mut filter = asked.filter().map_err(Failure::bad_request)?;
    if !everyone {
        // INVARIANT: a member's activity is their own, whatever the query says.
        filter.user = Some(person.user.id);
    }
    let mut entries = audit::entries(deps, org, &filter).await?;
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let told = telling::tell(deps, org, entries).await?;
    let roster = oversight::roster(deps, org).await?;
    page(&ActivityPage {
        shell: person.shell(deps)?,
        everyone,
        filters: filters(deps, &roster, &asked, everyone),
        older: told.last().filter(|_| more).map(|last| last.entry.id),
        newer: None,
        entries: told
            .iter()
            .map(|told| entries_view::line(deps, told, everyone))
            .collect(),
    })
}

/// `GET /activity/{id}`.
pub(super) async fn one(
    State(pages): State<Pages>,
    Person(person): Person,
    Id(id): Id<EntryId>,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let told = seen(deps, &person, id).await?;
    let line = entries_view::line(deps, &told, person.is_admin());
    page(&EntryPage::new(person.shell(deps)?, line, &told.entry))
}

/// One entry, if this person may see it; anything else is not found.
async fn seen(deps: &Deps, person: &Session, id: EntryId) -> Result<Told, Failure> {
    let org = person.org.id;
    let (_, entry, details) = audit::entry(deps, org, id).await?;
    if !person.is_admin() && entry.draft.user != Some(person.user.id) {
        return Err(Failure::not_found());
    }
    let told = telling::tell(deps, org, vec![(entry, details)]).await?;
    told.into_iter().next().ok_or_else(Failure::not_found)
}

fn filters(deps: &Deps, roster: &Roster, asked: &Asked, everyone: bool) -> ActivityFilters {
    let people = roster.people.iter().filter(|_| everyone);
    let connectors = deps.catalogue.iter();
    ActivityFilters {
        more: everyone && roster.more,
        people: people
            .map(|user| Choice::new(user.id, Shown::new(&user.display())))
            .map(|choice| choice.selected_if(asked.get("user")))
            .collect(),
        agents: roster
            .agents
            .iter()
            .map(|agent| Choice::new(agent.id, Shown::new(&agent.name)))
            .map(|choice| choice.selected_if(asked.get("agent")))
            .collect(),
        connectors: connectors
            .map(|connector| Choice::new(&connector.id, words::connector_name(deps, &connector.id)))
            .map(|choice| choice.selected_if(asked.get("connector")))
            .collect(),
        outcomes: OUTCOMES
            .iter()
            .map(|(code, label)| Choice::new(code, Shown::new(label)))
            .map(|choice| choice.selected_if(asked.get("outcome")))
            .collect(),
        kinds: [("human", "A person"), ("agent", "An agent")]
            .iter()
            .map(|(code, label)| Choice::new(code, Shown::new(label)))
            .map(|choice| choice.selected_if(asked.get("kind")))
            .collect(),
    }
}

/// The query of the page: known names, each at most once; an empty value means all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked(Vec<(&'static str, String)>);

impl Asked {
    fn parse(query: &str) -> Result<Self, &'static str> {
        let mut asked: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let name = NAMES
                .iter()
                .find(|known| **known == name)
                .ok_or("a filter nobody knows")?;
            if asked.iter().any(|(before, _)| before == name) {
                return Err("a filter came twice");
            }
            asked.push((name, value.into_owned()));
        }
        asked.retain(|(_, value)| !value.is_empty());
        Ok(Self(asked))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    fn id<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, &'static str> {
        self.get(name)
            .map(|text| text.parse().map_err(|_| "a filter of another form"))
            .transpose()
    }

    fn filter(&self) -> Result<EntryFilter, &'static str> {
        let outcome = match self.get("outcome") {
            Some(code) if OUTCOMES.iter().all(|(known, _)| *known != code) => {
                return Err("an outcome nobody knows");
            }
            outcome => outcome.map(str::to_owned),
        };
        Ok(EntryFilter {
            after: self.id("before")?,
            user: self.id("user")?,
            agent: self.id("agent")?,
            by_agent: match self.get("kind") {
                None => None,
                Some("human") => Some(false),
                Some("agent") => Some(true),
                Some(_) => return Err("a kind nobody knows"),
            },
            connector: self.id("connector")?,
            outcome,
            // One more than is shown tells whether there are older ones.
            among: None,
            limit: u64::try_from(PAGE + 1).unwrap_or(u64::MAX),
        })
    }
}

const NAMES: [&str; 6] = ["user", "agent", "connector", "outcome", "kind", "before"];
const OUTCOMES: [(&str, &str); 7] = [
    ("allow", "Allowed"),
    ("deny", "Refused"),
    ("ok", "Done"),
    ("failed", "Failed"),
    ("unknown", "No answer"),
    ("stopped", "Access ended"),
    ("unconfirmed", "Not confirmed by the app"),
];
const PAGE: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_filters_mean_all() {
        let asked = Asked::parse("user=&agent=&connector=&outcome=&kind=").unwrap();
        assert_eq!(asked, Asked::default());
        let filter = asked.filter().unwrap();
        assert!(filter.user.is_none() && filter.by_agent.is_none() && filter.outcome.is_none());
    }

    #[test]
    fn filters_become_typed() {
        let asked = Asked::parse("agent=agt_00000000000000000000000001&kind=agent&outcome=deny").unwrap();
        let filter = asked.filter().unwrap();
        assert_eq!(
            filter.agent,
            Some("agt_00000000000000000000000001".parse().unwrap())
        );
        assert_eq!(filter.by_agent, Some(true));
        assert_eq!(filter.outcome.as_deref(), Some("deny"));
    }

    #[test]
    fn filters_of_another_form_are_refused() {
        for query in ["x=1", "kind=agent&kind=agent"] {
            assert!(Asked::parse(query).is_err(), "{query}");
        }
        for query in [
            "kind=robot",
            "user=agt_00000000000000000000000001",
            "outcome=%3Cb%3E",
            "before=1",
        ] {
            assert!(Asked::parse(query).unwrap().filter().is_err(), "{query}");
        }
    }
}
