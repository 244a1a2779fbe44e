//! What the test programs and the measurements share: how a deployment on loopback is made.

pub(crate) mod loopback;
pub(crate) mod parts;
