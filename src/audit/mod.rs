//! Entry encoding, Merkle log, checkpoints, verification.
