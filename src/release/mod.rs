//! Verify, gate, open: the only way anything leaves.
