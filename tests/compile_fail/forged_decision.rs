use postern::{domain::decision::DecisionClaims, release::VerifiedDecision};

fn forge(claims: DecisionClaims) -> VerifiedDecision {
    VerifiedDecision { claims, sha256: String::new(), external: false }
}

fn main() {}
