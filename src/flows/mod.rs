//! Straight paths: connect, decide, vend, execute, refresh, revoke.
