//! Pieces several pages share; each writes its own HTML and is escaped inside.

mod choice;
mod delegation;
mod entry;
mod icon;
mod notice;
mod permissions;
mod sentence;
mod status;

pub use choice::Choice;
pub use delegation::{AgentBoxes, AgentMay};
pub use entry::{EntryLine, OutcomeMark};
pub use icon::Icon;
pub use notice::Notice;
pub use permissions::{Permission, PermissionKind, Permissions};
pub use sentence::{EntryFacts, Sentence, sentence};
pub use status::{GrantStatus, Tone, UpstreamResult};
