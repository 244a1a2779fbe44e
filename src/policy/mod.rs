//! Cedar evaluation and the notary.
