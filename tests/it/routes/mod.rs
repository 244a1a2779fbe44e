//! The API over its real router: who may, what comes back, in which order it is refused.

mod connect_host;
mod external;
mod keys;
mod matrix;
mod order;
mod pages;
mod probing;
mod shape;
mod tenants;
mod vend;
