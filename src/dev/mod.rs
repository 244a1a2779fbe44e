//! The demo organisation and the Acme Mail provider.

pub mod acme_mail;
