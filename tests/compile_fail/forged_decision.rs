use postern::{domain::decision::DecisionClaims, release::VerifiedDecision};

fn forge(claims: DecisionClaims) -> VerifiedDecision {
    VerifiedDecision { claims, sha256: String::new(), external: false } //~ E0451 fields `claims`, `sha256` and `external` of struct `VerifiedDecision` are private: private field
}

fn main() {}
