use postern::release::{Gate, Release, VerifiedDecision};

async fn twice(gate: &Gate, decision: VerifiedDecision, one: Release, two: Release) {
    let _ = gate.release(decision, one).await;
    let _ = gate.release(decision, two).await; //~ E0382 use of moved value: `decision`: value used here after move
}

fn main() {}
