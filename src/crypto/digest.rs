//! Digests and their texts.

use std::fmt::Write as _;

use ring::digest;

/// `sha256:` and lower-case hex, the form of digests in JSON.
#[must_use]
pub fn sha256_text(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in digest::digest(&digest::SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
