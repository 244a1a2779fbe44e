//! What surrounds every page: whose organisation, who is signed in, the way around, the way out.

use askama::{Template, filters::HtmlSafe};

use super::{Shown, UrlToken, assets};

/// What every page has.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The organisation's name; `None` before anything is known.
    pub org: Option<Shown>,
    /// Who is signed in.
    pub person: Option<Person>,
    /// The token every form of the page carries in its hidden field `csrf`.
    pub csrf: UrlToken,
}

/// Who is signed in.
#[derive(Debug, Clone)]
pub struct Person {
    /// The name.
    pub name: Shown,
    /// The address.
    pub email: Shown,
    /// Whether the pages for admins are in the way around.
    pub is_admin: bool,
}

impl Shell {
    pub(crate) fn header<'a>(&'a self, here: &'a str) -> Header<'a> {
        Header { shell: self, here }
    }

    pub(crate) fn csrf_field(&self) -> CsrfField<'_> {
        CsrfField { token: &self.csrf }
    }

    pub(crate) fn stylesheet(&self) -> String {
        assets::STYLESHEET.href()
    }

    pub(crate) fn icon(&self) -> String {
        assets::ICON.href()
    }
}

/// The bar at the top; `here` names the section the page belongs to.
#[derive(Debug, Template)]
#[template(path = "postern/header.html")]
pub(crate) struct Header<'a> {
    shell: &'a Shell,
    here: &'a str,
}

impl HtmlSafe for Header<'_> {}

/// The hidden field of a form.
#[derive(Debug, Template)]
#[template(
    source = r#"<input type="hidden" name="csrf" value="{{ token }}">"#,
    ext = "html"
)]
pub(crate) struct CsrfField<'a> {
    token: &'a UrlToken,
}

impl HtmlSafe for CsrfField<'_> {}
