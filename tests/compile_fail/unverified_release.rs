use postern::{
    domain::decision::UnverifiedDecision,
    release::{Gate, Release},
};

async fn skip_verification(gate: &Gate, decision: UnverifiedDecision, release: Release) {
    let _ = gate.release(decision, release).await; //~ E0308 mismatched types: expected `VerifiedDecision`, found `UnverifiedDecision`
}

fn main() {}
