//! Forms: read strictly, and only after origin and token have been checked.
//!
//! SECURITY: a [`Form`] is never handed out alone. The three extractors here are the only ways to one, and each has
//! checked where it came from and whose token it carries.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use url::form_urlencoded;

use super::{
    Pages,
    failure::Failure,
    session::{self, Admin, Link, Person, Session, Visitor},
};
use crate::{domain::secret::LinkToken, http::extract::has_media_type};

/// The fields of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Refuses every field that is neither one of `single` (at most once) nor one of `lists`.
    pub(super) fn only(self, single: &[&str], lists: &[&str]) -> Result<Self, Failure> {
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in &self.0 {
            let name = name.as_str();
            if lists.contains(&name) {
                continue;
            }
            if name != CSRF && !single.contains(&name) {
                return Err(Failure::bad_request("a form has a field nobody asked for"));
            }
            if seen.contains(&name) {
                return Err(Failure::bad_request("a form has a field twice"));
            }
            seen.push(name);
        }
        Ok(self)
    }

    /// The field; nothing if it is not there or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(field, _)| field == name);
        let (_, value) = found.next()?;
        (found.next().is_none() && !value.is_empty()).then_some(value.as_str())
    }

    /// Every field of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    fn token(&self) -> &str {
        self.get(CSRF).unwrap_or_default()
    }

    async fn read(request: Request, pages: &Pages) -> Result<Self, Failure> {
        let headers = request.headers();
        pages
            .site
            .check_form_origin(headers)
            .map_err(|problem| Failure::stale_form(&problem))?;
        if !has_media_type(headers, "application/x-www-form-urlencoded") {
            return Err(Failure::bad_request("a form of another media type"));
        }
        let bytes = Bytes::from_request(request, pages)
            .await
            .map_err(|_| Failure::bad_request("a form that is too large or ended early"))?;
        let text = std::str::from_utf8(&bytes).map_err(Failure::bad_request)?;
        Ok(Self::parse(text))
    }
}

/// A form of a signed-in person.
#[derive(Debug)]
pub(super) struct Signed {
    /// Whose.
    pub(super) person: Session,
    /// The fields.
    pub(super) form: Form,
}

/// A form of a signed-in admin.
#[derive(Debug)]
pub(super) struct SignedByAdmin {
    /// Whose.
    pub(super) admin: Session,
    /// The fields.
    pub(super) form: Form,
}

/// A form of a page behind a one-time link; its visitor need not be signed in.
#[derive(Debug)]
pub(super) struct SignedLink {
    /// Whose.
    pub(super) visitor: Visitor,
    /// The link.
    pub(super) link: LinkToken,
    /// The fields.
    pub(super) form: Form,
}

impl FromRequest<Pages> for Signed {
    type Rejection = Failure;

    async fn from_request(request: Request, pages: &Pages) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Person(person) = Person::from_request_parts(&mut parts, pages).await?;
        let form = Form::read(Request::from_parts(parts, body), pages).await?;
        session::check_form(&pages.deps, &person, form.token())?;
        Ok(Self { person, form })
    }
}

impl FromRequest<Pages> for SignedByAdmin {
    type Rejection = Failure;

    async fn from_request(request: Request, pages: &Pages) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Admin(admin) = Admin::from_request_parts(&mut parts, pages).await?;
        let form = Form::read(Request::from_parts(parts, body), pages).await?;
        session::check_form(&pages.deps, &admin, form.token())?;
        Ok(Self { admin, form })
    }
}

impl FromRequest<Pages> for SignedLink {
    type Rejection = Failure;

    async fn from_request(request: Request, pages: &Pages) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Link(link) = Link::from_request_parts(&mut parts, pages).await?;
        let visitor = Visitor::from_request_parts(&mut parts, pages).await?;
        let form = Form::read(Request::from_parts(parts, body), pages).await?;
        visitor.check_form(&pages.deps, &link, form.token())?;
        Ok(Self { visitor, link, form })
    }
}

const CSRF: &str = "csrf";

#[cfg(test)]
pub(super) fn form_of(text: &str) -> Form {
    Form::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_nobody_asked_for_are_refused() {
        assert!(
            form_of("csrf=x&connector=a&more=b")
                .only(&["connector"], &[])
                .is_err()
        );
        assert!(form_of("csrf=x&connector=a").only(&["connector"], &[]).is_ok());
    }

    #[test]
    fn a_field_twice_is_refused_unless_it_is_a_list() {
        assert!(
            form_of("connector=a&connector=a")
                .only(&["connector"], &[])
                .is_err()
        );
        assert!(form_of("csrf=a&csrf=a").only(&[], &[]).is_err());
        assert!(form_of("allow=a&allow=b").only(&[], &["allow"]).is_ok());
    }

    #[test]
    fn a_token_given_twice_is_no_token() {
        assert_eq!(form_of("csrf=a&csrf=a").token(), "");
        assert_eq!(form_of("csrf=a").token(), "a");
    }

    #[test]
    fn an_empty_field_is_as_good_as_none() {
        assert_eq!(form_of("user=&what=user").get("user"), None);
        assert_eq!(form_of("user=&what=user").get("what"), Some("user"));
    }
}
