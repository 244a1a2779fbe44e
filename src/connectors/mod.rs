//! Connector files, OAuth, and rendering actions into requests.
//!
//! A connector is data: `connectors/<id>.toml`. This room loads and checks the files, speaks OAuth as they say,
//! validates arguments, renders requests and filters answers. It decides nothing about who may do what, stores
//! nothing, and must never put a token, code or client secret into an error, a log or a URL.

mod args;
mod catalogue;
mod check;
mod digest;
mod errors;
mod formats;
mod http_request;
mod lookup;
mod mime;
pub mod oauth;
mod path;
mod render;
mod response;
mod summary;
mod template;
#[cfg(test)]
mod tests;
mod vars;

use crate::domain::{
    ScopeSet,
    connector::{ActionDefinition, Category, Connector, HTTP_REQUEST},
};

pub use args::{ArgError, ValidArgs, validate};
pub use catalogue::{Catalogue, CatalogueError, Options};
pub use errors::{ErrorClass, classify_api};
pub use render::{RenderRefusal, Rendered, credential, render};
pub use response::{FilteredBody, FilteredResponse, filter};
pub use summary::{summary, visible};
pub use vars::{VarError, Vars, filled};

/// One tool of a connector: a typed action, or the generic one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tool<'c> {
    /// An action of the file.
    Typed(&'c ActionDefinition),
    /// `http.request`.
    HttpRequest,
}

impl<'c> Tool<'c> {
    /// The connector's tool called `name`; `http.request` only where the file names an origin for it.
    #[must_use]
    pub fn find(connector: &'c Connector, name: &str) -> Option<Self> {
        if name == HTTP_REQUEST {
            return connector.api.origin.is_some().then_some(Self::HttpRequest);
        }
        connector.action(name).map(Self::Typed)
    }

    /// What it does to the world; the generic tool has no category.
    #[must_use]
    pub fn category(self) -> Option<Category> {
        match self {
            Self::Typed(action) => Some(action.category),
            Self::HttpRequest => None,
        }
    }

    /// The scopes one call needs; the generic tool names none.
    #[must_use]
    pub fn scopes(self) -> ScopeSet {
        match self {
            Self::Typed(action) => action.scopes.clone(),
            Self::HttpRequest => ScopeSet::default(),
        }
    }
}
