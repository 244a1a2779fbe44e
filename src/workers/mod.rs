//! Background work: outbox, sequencer, sweep.
