//! The KeyService port of Postern, its adapters and their one conformance suite.
