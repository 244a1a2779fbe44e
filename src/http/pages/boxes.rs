//! The boxes of the confirm page and of a connection: out as `web` shows them, in as choices.

use std::collections::BTreeSet;

use super::{failure::Failure, form::Form};
use crate::{
    domain::{
        AgentId,
        connector::{Category, Connector},
        delegation::Delegation,
    },
    flows::choices::Choice,
    store::AgentRow,
    web::{Shown, parts::AgentBoxes},
};

/// The names of the fields that may come more than once.
pub(super) const LISTS: &[&str] = &["agent", "allow"];

/// Reads `agent` (every agent whose boxes were on the page) and `allow` (`<agent>:<category>` or `<agent>:raw`).
pub(super) fn read(form: &Form) -> Result<Vec<Choice>, Failure> {
    let mut choices: Vec<Choice> = Vec::new();
    for text in form.all("agent") {
        let agent: AgentId = text.parse().map_err(Failure::bad_request)?;
        if choices.iter().any(|choice| choice.agent == agent) {
            return Err(Failure::bad_request("the same agent twice"));
        }
        choices.push(Choice {
            agent,
            categories: BTreeSet::new(),
            raw: false,
        });
    }
    for text in form.all("allow") {
        let (agent, what) = text
            .split_once(':')
            .ok_or_else(|| Failure::bad_request("a box without an agent"))?;
        let agent: AgentId = agent.parse().map_err(Failure::bad_request)?;
        let choice = choices
            .iter_mut()
            .find(|choice| choice.agent == agent)
            .ok_or_else(|| Failure::bad_request("a box of an agent that was not on the page"))?;
        if what == RAW {
            choice.raw = true;
        } else {
            choice
                .categories
                .insert(what.parse().map_err(Failure::bad_request)?);
        }
    }
    Ok(choices)
}

/// What a new connection proposes: `read` and `write` for the agent that asked; for the only agent there is if the person
/// came by themself; for nobody if there are several to choose from.
pub(super) fn proposed(
    agents: &[AgentRow],
    connector: &Connector,
    asked: Option<AgentId>,
) -> Vec<AgentBoxes> {
    let meant = match (asked, agents) {
        (None, [only]) => Some(only.id),
        _ => asked,
    };
    agents
        .iter()
        .map(|agent| {
            let mut boxes = AgentBoxes::proposed(agent.id, Shown::new(&agent.name));
            boxes.offered = offered(connector, &boxes.ticked);
            if meant != Some(agent.id) {
                boxes.ticked.clear();
            }
            boxes.ticked.retain(|category| boxes.offered.contains(category));
            boxes.raw = Some(false);
            boxes
        })
        .collect()
}

/// What holds now.
pub(super) fn holding<'a>(
    agents: &[AgentRow],
    connector: Option<&Connector>,
    delegations: impl Iterator<Item = &'a Delegation> + Clone,
) -> Vec<AgentBoxes> {
    agents
        .iter()
        .map(|agent| {
            let own = delegations
                .clone()
                .filter(|delegation| delegation.agent == agent.id);
            let mut ticked = BTreeSet::new();
            let mut raw = false;
            for delegation in own {
                ticked.extend(&delegation.categories);
                raw |= delegation.raw;
            }
            AgentBoxes {
                agent: agent.id,
                name: Shown::new(&agent.name),
                offered: connector
                    .map_or_else(|| Category::ALL.to_vec(), |connector| offered(connector, &ticked)),
                ticked,
                raw: Some(raw),
            }
        })
        .collect()
}

/// The categories the connector has tools in, and those already allowed: an unseen box must not be cleared by saving.
fn offered(connector: &Connector, ticked: &BTreeSet<Category>) -> Vec<Category> {
    if connector.actions.is_empty() {
        return Category::ALL.to_vec();
    }
    Category::ALL
        .into_iter()
        .filter(|category| {
            ticked.contains(category)
                || connector
                    .actions
                    .iter()
                    .any(|action| action.category == *category)
        })
        .collect()
}

const RAW: &str = "raw";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connectors::{Catalogue, Options},
        domain::Time,
        http::pages::form::form_of,
    };

    const ONE: &str = "agt_00000000000000000000000001";
    const TWO: &str = "agt_00000000000000000000000002";

    #[test]
    fn boxes_become_choices_and_an_agent_without_a_tick_is_still_there() {
        let form = form_of(&format!(
            "agent={ONE}&allow={ONE}:read&allow={ONE}:destructive&agent={TWO}"
        ));
        let choices = read(&form).unwrap();
        assert_eq!(choices.len(), 2);
        assert_eq!(
            choices[0].categories,
            BTreeSet::from([Category::Read, Category::Destructive])
        );
        assert!(!choices[0].raw);
        assert!(choices[1].categories.is_empty());
    }

    #[test]
    fn a_box_is_ticked_beforehand_only_where_it_is_clear_which_agent_is_meant() {
        let catalogue = Catalogue::load(&Options {
            acme_mail_origin: Some("http://127.0.0.1:1"),
            ..Options::default()
        })
        .unwrap();
        let connector = catalogue.get(&"acme-mail".parse().unwrap()).unwrap();
        let agent = |id: &str| AgentRow {
            id: id.parse().unwrap(),
            name: "A".to_owned(),
            made_epoch: 1,
            created_at: Time::from_unix_seconds(0),
            disabled_at: None,
        };
        let (one, two) = (agent(ONE), agent(TWO));
        let ticked = |agents: &[AgentRow], asked: Option<AgentId>| -> Vec<usize> {
            let boxes = proposed(agents, connector, asked);
            boxes.iter().map(|boxes| boxes.ticked.len()).collect()
        };
        let (both, usual) = ([one.clone(), two.clone()], 2);
        assert_eq!(ticked(&both, Some(two.id)), [0, usual]);
        assert_eq!(ticked(&both, None), [0, 0]);
        assert_eq!(ticked(&both[..1], None), [usual]);
        assert_eq!(ticked(&both[..1], Some(two.id)), [0]);
    }

    #[test]
    fn a_raw_token_is_a_box_of_its_own() {
        let choices = read(&form_of(&format!("agent={ONE}&allow={ONE}:raw"))).unwrap();
        assert!(choices[0].raw && choices[0].categories.is_empty());
    }

    #[test]
    fn boxes_that_were_not_on_the_page_are_refused() {
        for text in [
            format!("allow={ONE}:read"),
            format!("agent={ONE}&allow={TWO}:read"),
            format!("agent={ONE}&allow={ONE}:everything"),
            format!("agent={ONE}&allow={ONE}"),
            format!("agent={ONE}&agent={ONE}"),
            "agent=usr_00000000000000000000000001".to_owned(),
        ] {
            assert!(read(&form_of(&text)).is_err(), "{text}");
        }
    }
}
