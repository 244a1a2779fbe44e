//! The demo organisation and the Acme Mail provider.
