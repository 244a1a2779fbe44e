//! What an agent may do with a grant: as words, and as boxes to tick.

use std::collections::BTreeSet;

use askama::{Template, filters::HtmlSafe};

use crate::{
    domain::{connector::Category, id::AgentId},
    web::{Shown, words},
};

/// What one agent may do with a grant, as words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMay {
    /// The agent's name.
    pub agent: Shown,
    /// The categories delegated.
    pub categories: BTreeSet<Category>,
    /// Whether a raw token may be released.
    pub raw: bool,
}

impl AgentMay {
    /// `read and write`, `nothing`, `read, write and receive a raw token`.
    pub(crate) fn may(&self) -> String {
        let mut parts: Vec<String> = self
            .categories
            .iter()
            .map(|category| words::category(*category).to_lowercase())
            .collect();
        if self.raw {
            parts.push("receive a raw token".to_owned());
        }
        match parts.split_last() {
            None => "nothing".to_owned(),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
        }
    }
}

/// The boxes for one agent, a group of a form.
///
/// Every ticked box is sent as a field `allow` with the value `<agent>:<category>` or `<agent>:raw`; every agent whose
/// boxes were on the page is sent as a field `agent`, so that an agent with no tick is told from one not shown.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "postern/parts/boxes.html")]
pub struct AgentBoxes {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: Shown,
    /// The boxes to show, in this order.
    pub offered: Vec<Category>,
    /// The boxes that are ticked.
    pub ticked: BTreeSet<Category>,
    /// The box "may receive a raw token": `None` hides it, else whether it is ticked.
    pub raw: Option<bool>,
}

impl HtmlSafe for AgentBoxes {}

impl AgentBoxes {
    /// All categories, `read` and `write` ticked, no raw token: what a new connection proposes.
    #[must_use]
    pub fn proposed(agent: AgentId, name: Shown) -> Self {
        Self {
            agent,
            name,
            offered: Category::ALL.to_vec(),
            ticked: BTreeSet::from([Category::Read, Category::Write]),
            raw: None,
        }
    }

    fn boxes(&self) -> Vec<Tick> {
        self.offered
            .iter()
            .map(|category| Tick {
                value: category.as_str(),
                title: words::category(*category),
                meaning: words::category_meaning(*category),
                on: self.ticked.contains(category),
            })
            .collect()
    }
}

struct Tick {
    value: &'static str,
    title: &'static str,
    meaning: &'static str,
    on: bool,
}
