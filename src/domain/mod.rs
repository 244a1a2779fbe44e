//! Ground floor: pure, synchronous values and rules. No I/O; imports nothing of ours.

pub mod action;
pub mod clock;
pub mod connector;
pub mod decision;
pub mod delegation;
pub mod entry;
pub mod grant;
pub mod id;
pub mod loopback;
pub mod mode;
pub mod principal;
pub mod rules;
pub mod scope;
pub mod secret;
pub mod text;

pub use action::Action;
pub use clock::{Clock, Randomness, RandomnessUnavailable, Time, random_pause};
pub use id::{
    AgentId, ApprovalId, ConnectSessionId, DecisionId, DelegationId, EngineId, EntryId, GrantId, HandleId,
    KeyId, OrgId, RevocationId, ServiceId, UserId,
};
pub use mode::{Mode, ModeSet};
pub use scope::ScopeSet;
