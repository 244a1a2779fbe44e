//! Typed identifiers: TypeIDs (specification 0.3), a prefix and a UUIDv7 in lower-case base 32.
//!
//! An id of one kind is never accepted where another is asked: wrong prefixes and non-canonical suffixes do not parse.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::clock::{Randomness, RandomnessUnavailable, Time};

/// The text is not an id of the expected kind in its one canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical `{expected}_…` id")]
pub struct InvalidId {
    /// The prefix that was expected, without the underscore.
    pub expected: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The prefix in front of the underscore.
            pub const PREFIX: &'static str = {
                assert!($prefix.len() == PREFIX_LEN);
                $prefix
            };

            /// Makes a new id: UUIDv7 (RFC 9562 §5.7) from the given time and randomness.
            ///
            /// # Errors
            /// When the generator cannot deliver.
            pub fn new(now: Time, random: &dyn Randomness) -> Result<Self, RandomnessUnavailable> {
                uuid_v7(now, random).map(Self)
            }

            /// The 16 bytes behind the text.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// An id from its 16 bytes, for vectors and tests.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Text::of($prefix, &self.0).as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_typeid($prefix, text).map(Self).ok_or(InvalidId { expected: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Text::of($prefix, &self.0).as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A tenant.
    OrgId = "org";
    /// A person.
    UserId = "usr";
    /// A software principal, never a person.
    AgentId = "agt";
    /// One user's stored authorization at one connector account.
    GrantId = "grt";
    /// What a user lets an agent do with a grant.
    DelegationId = "dlg";
    /// A signed answer.
    DecisionId = "dec";
    /// A human's yes to one action.
    ApprovalId = "apr";
    /// One audit record.
    EntryId = "ent";
    /// An opaque reference usable only through Postern.
    HandleId = "hdl";
    /// One revocation.
    RevocationId = "rev";
    /// An external policy engine.
    EngineId = "eng";
    /// An API key or a key of the hierarchy.
    KeyId = "key";
    /// A host application.
    ServiceId = "svc";
    /// A connect session.
    ConnectSessionId = "con";
}

fn uuid_v7(now: Time, random: &dyn Randomness) -> Result<[u8; 16], RandomnessUnavailable> {
    let mut bytes = [0_u8; 16];
    random.fill(&mut bytes)?;
    let [_, _, t1, t2, t3, t4, t5, t6] = now.unix_millis().to_be_bytes();
    let [_, _, _, _, _, _, r6, r7, r8, tail @ ..] = bytes;
    let [t, u, v, w, x, y, z] = tail;
    Ok([
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        (r6 & 0x0f) | 0x70,
        r7,
        (r8 & 0x3f) | 0x80,
        t,
        u,
        v,
        w,
        x,
        y,
        z,
    ])
}

/// The text of an id, made without allocating or formatting: a release writes some thirty of them.
struct Text([u8; TEXT_LEN]);

impl Text {
    fn of(prefix: &str, bytes: &[u8; 16]) -> Self {
        let mut text = [b'_'; TEXT_LEN];
        for (letter, of_prefix) in text.iter_mut().zip(prefix.bytes()) {
            *letter = of_prefix;
        }
        let mut rest = u128::from_be_bytes(*bytes);
        for digit in text.iter_mut().skip(PREFIX_LEN + 1).rev() {
            let [place, ..] = rest.to_le_bytes();
            *digit = digit_of(place & 31);
            rest >>= 5;
        }
        Self(text)
    }

    fn as_str(&self) -> &str {
        // Prefixes and digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn parse_typeid(prefix: &str, text: &str) -> Option<[u8; 16]> {
    let suffix = text.strip_prefix(prefix)?.strip_prefix('_')?;
    // 26 digits carry 130 bits: the first may only be 0..=7 (TypeID 0.3, "Suffix").
    if suffix.len() != 26 || !matches!(suffix.as_bytes().first(), Some(b'0'..=b'7')) {
        return None;
    }
    let number = suffix.bytes().try_fold(0_u128, |number, digit| {
        Some((number << 5) | u128::from(value_of(digit)?))
    })?;
    Some(number.to_be_bytes())
}

/// The place of a digit in [`ALPHABET`]. Audit verification parses half a million ids a second: no search.
fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'h' => Some(digit - b'a' + 10),
        b'j'..=b'k' => Some(digit - b'j' + 18),
        b'm'..=b'n' => Some(digit - b'm' + 20),
        b'p'..=b't' => Some(digit - b'p' + 22),
        b'v'..=b'z' => Some(digit - b'v' + 27),
        _ => None,
    }
}

/// The digit at a place of [`ALPHABET`].
fn digit_of(place: u8) -> u8 {
    ALPHABET.get(usize::from(place)).copied().unwrap_or_default()
}

/// Crockford's base 32, lower case, as TypeID prescribes.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of every prefix.
const PREFIX_LEN: usize = 3;
/// Letters of an id: the prefix, an underscore, 26 digits.
const TEXT_LEN: usize = PREFIX_LEN + 1 + 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typeid_known_answers_hold() {
        // TypeID 0.3, valid.yml: nil, one, ten, sixteen, thirty-two, max-valid, valid-uuidv7.
        let id = |bytes: u128| OrgId::from_bytes(bytes.to_be_bytes()).to_string();
        assert_eq!(id(0), "org_00000000000000000000000000");
        assert_eq!(id(1), "org_00000000000000000000000001");
        assert_eq!(id(32), "org_00000000000000000000000010");
        assert_eq!(id(u128::MAX), "org_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(
            id(0x0188_bac7_4afa_78aa_bc3b_bd1e_ef28_d881),
            "org_01h2xcejqtf2nbrexx3vqjhp41"
        );
    }

    #[test]
    fn ids_of_another_kind_or_in_another_form_do_not_parse() {
        for text in [
            "usr_00000000000000000000000000",
            "org_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "org_0000000000000000000000000",
            "org_000000000000000000000000000",
            "ORG_00000000000000000000000000",
            "org_0000000000000000000000000I",
            "org_0000000000000000000000000A",
            "org-00000000000000000000000000",
            "",
        ] {
            assert!(text.parse::<OrgId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digit_stands_for_its_place_in_the_alphabet() {
        for digit in 0..=u8::MAX {
            let place = ALPHABET.iter().position(|letter| *letter == digit);
            assert_eq!(value_of(digit).map(usize::from), place);
        }
    }

    #[test]
    fn an_id_survives_text_and_back() {
        let id = GrantId::from_bytes(0x0188_bac7_4afa_78aa_bc3b_bd1e_ef28_d881_u128.to_be_bytes());
        assert_eq!(id.to_string().parse::<GrantId>().unwrap(), id);
    }
}
