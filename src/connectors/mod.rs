//! Connector files, OAuth and rendering.
