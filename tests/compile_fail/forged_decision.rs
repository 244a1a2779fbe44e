use postern::{domain::decision::DecisionClaims, release::VerifiedDecision};

fn forge(claims: DecisionClaims, other: VerifiedDecision) -> VerifiedDecision {
    VerifiedDecision { claims, sha256: String::new(), ..other } //~ E0451 fields `claims`, `sha256` and `origin` of struct `VerifiedDecision` are private: private field
}

fn main() {}
