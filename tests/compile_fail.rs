//! The proofs of `release` cannot be made, copied or left out: these programs must not compile.

#[test]
fn the_proof_types_cannot_be_forged_copied_or_skipped() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
