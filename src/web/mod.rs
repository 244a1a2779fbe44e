//! The pages people see: askama templates and the plain data they show.
//!
//! Promises: works without JavaScript, asks nothing of another origin, escapes everything, shows outside text only
//! through [`Shown`]. Must never run a flow, read a store or name a web framework: `http` fills the structs in
//! [`pages`], calls [`Template::render`] and sends the text.
//!
//! The pages need no more than this content security policy: `default-src 'none'; style-src 'self'; img-src 'self';
//! form-action 'self'; base-uri 'none'; frame-ancestors 'none'`.

pub mod assets;
pub mod pages;
pub mod parts;
pub mod shell;
pub mod shown;
pub mod url;
pub mod when;
pub mod words;

pub use askama::Template;
pub use shell::{Person, Shell};
pub use shown::Shown;
pub use url::{OutwardUrl, UrlToken};
pub use when::When;

#[cfg(test)]
mod tests;
