//! The two files pages load: one stylesheet and one icon, compiled in.
//!
//! Their URLs carry a hash of their content, so that they may be cached for ever.

use std::fmt;

/// A file served as it is, with `Cache-Control: public, max-age=31536000, immutable`.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// The path it is served at, without the query.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its content.
    pub text: &'static str,
    version: u64,
}

impl Asset {
    const fn new(path: &'static str, content_type: &'static str, text: &'static str) -> Self {
        Self {
            path,
            content_type,
            text,
            version: fnv1a(text.as_bytes()),
        }
    }

    /// The URL pages use: the path and a hash of the content.
    #[must_use]
    pub fn href(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?v={:016x}", self.path, self.version)
    }
}

/// The one stylesheet.
pub const STYLESHEET: Asset = Asset::new(
    "/assets/postern.css",
    "text/css; charset=utf-8",
    include_str!("../../templates/postern/postern.css"),
);

/// The icon browsers show in a tab.
pub const ICON: Asset = Asset::new(
    "/assets/postern.svg",
    "image/svg+xml",
    include_str!("../../templates/postern/postern.svg"),
);

/// All of them, for the router.
pub const ALL: [Asset; 2] = [STYLESHEET, ICON];

// FNV-1a tells versions of our own files apart; nothing rests on it being hard to forge.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        hash ^= *byte as u64;
        hash = hash.wrapping_mul(0x0100_0000_01b3);
        rest = tail;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asset_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn assets_ask_nothing_of_another_origin() {
        for asset in ALL {
            for needle in ["url(", "@import", "//cdn", "<script"] {
                assert!(!asset.text.contains(needle), "{} holds {needle}", asset.path);
            }
        }
    }
}
