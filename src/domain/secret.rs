//! Secrets as types: text that never prints, never serialises and is wiped when dropped.

use secrecy::{ExposeSecret, SecretString};

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(SecretString);

        impl $name {
            /// Takes the text over; the caller keeps no copy.
            #[must_use]
            pub fn new(text: String) -> Self {
                Self(SecretString::from(text))
            }

            /// The plain text. SECURITY: only the rooms named in CONVENTIONS §3 may call this.
            #[must_use]
            pub fn expose_secret(&self) -> &str {
                self.0.expose_secret()
            }
        }
    )*};
}

secrets! {
    /// RFC 6749 §1.4.
    AccessToken;
    /// RFC 6749 §1.5. Never released by any rung.
    RefreshToken;
    /// RFC 6749 §2.3.1.
    ClientSecret;
    /// RFC 6749 §4.1.2.
    AuthorizationCode;
    /// RFC 7636 §4.1.
    CodeVerifier;
    /// An API key of ours (`psd_…`, `pss_…`, `psa_…`) as presented or just minted.
    ApiKey;
    /// A one-time secret in a link, a cookie or a form: 256 bits, stored only as a keyed hash.
    LinkToken;
}
