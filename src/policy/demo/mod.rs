//! The policies of `postern dev`: what a newcomer sees first, so they show the good way.

use super::compile::{PolicySources, PolicyText};

/// The organisation layer of the demo.
pub const ORG: &str = include_str!("org.cedar");

/// The agent capability layer of the demo.
pub const AGENT: &str = include_str!("agent.cedar");

/// Both, as the store would give them.
#[must_use]
pub fn sources() -> PolicySources {
    let text = |name: &str, text: &str| PolicyText {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    PolicySources {
        org: vec![text("org.cedar", ORG)],
        agent: vec![text("agent.cedar", AGENT)],
        version: "demo".to_owned(),
    }
}
