//! As much of a browser as pages without scripts need: cookies, redirects, links, forms.

use std::collections::BTreeMap;

use postern::egress::{OutboundRequest, operator_client};
use url::Url;

/// Somebody signs in by a one-time link, connects an account of Acme Mail (again) and lets the agent do what the page
/// offers; all in a browser of their own.
pub(crate) async fn connect(login: &str, postern: &str, acme: &str, account: &str) {
    let mut browser = Browser::default();
    let consenting = browser.up_to_consent(login, postern, acme, account).await;
    let allow = [("decision", "allow")];
    let confirming = browser.submit(&consenting, "/authorize", &allow).await;
    let confirm = [("choice", "confirm")];
    let done = browser.submit(&confirming, "/confirm", &confirm).await;
    assert!(done.text.contains("is connected"), "{}", done.text);
}

/// A browser of one person.
#[derive(Debug, Default)]
pub(crate) struct Browser {
    /// By host and port, then by name: stricter than real ones, which share them among ports.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// A page as it came.
#[derive(Debug)]
pub(crate) struct Page {
    url: Url,
    pub(crate) text: String,
}

impl Browser {
    /// Opens an address, following redirects.
    pub(crate) async fn open(&mut self, url: &str) -> Page {
        self.go("GET", Url::parse(url).unwrap(), None).await
    }

    /// Sends the first form of the page whose action holds this text. Fields keep what the page gave them, unless said
    /// otherwise.
    pub(crate) async fn submit(&mut self, page: &Page, action: &str, fields: &[(&str, &str)]) -> Page {
        let form = page.form(action);
        let target = page.url.join(&attribute(form, "action").unwrap()).unwrap();
        let body = filled(form, fields);
        self.go("POST", target, Some((page, body))).await
    }

    /// Signs in and goes as far as the provider's consent page.
    pub(crate) async fn up_to_consent(
        &mut self,
        login: &str,
        postern: &str,
        acme: &str,
        account: &str,
    ) -> Page {
        let login = self.open(login).await;
        self.submit(&login, "/login/", &[]).await;
        let connections = self.open(&format!("{postern}/connections")).await;
        let reconnects = connections.text.contains("/reconnect");
        let how = if reconnects {
            "/reconnect"
        } else {
            "/connections/connect"
        };
        let asked = self.submit(&connections, how, &[]).await;
        let going = self.submit(&asked, "/connect/", &[]).await;
        let picking = self.open(&going.link_to(acme)).await;
        let account = [("account", account)];
        self.submit(&picking, "/authorize", &account).await
    }

    async fn go(&mut self, method: &str, url: Url, form: Option<(&Page, String)>) -> Page {
        let (mut method, mut url, mut form) = (method.to_owned(), url, form);
        for _redirect in 0..10 {
            let origin = url.origin().ascii_serialization();
            let body = form
                .as_ref()
                .map(|(_, body)| ("application/x-www-form-urlencoded", body.clone()));
            let mut request = request(&method, url.as_str(), body);
            let jar = self.cookies.entry(origin.clone()).or_default();
            let cookies: Vec<String> = jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if !cookies.is_empty() {
                request
                    .headers
                    .insert("cookie", cookies.join("; ").parse().unwrap());
            }
            if let Some((page, _)) = form.take() {
                let from = page.url.origin().ascii_serialization();
                request.headers.insert("origin", from.parse().unwrap());
                request
                    .headers
                    .insert("sec-fetch-site", "same-origin".parse().unwrap());
            }
            let answer = operator_client().unwrap().send(request).await.unwrap();
            for cookie in answer.headers.get_all("set-cookie") {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                jar.insert(name.to_owned(), value.to_owned());
            }
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            match answer.headers.get("location") {
                Some(next) => {
                    assert!((300..400).contains(&answer.status));
                    url = url.join(next.to_str().unwrap()).unwrap();
                    "GET".clone_into(&mut method);
                }
                None => {
                    assert_eq!(answer.status, 200, "{url}: {text}");
                    return Page { url, text };
                }
            }
        }
        panic!("too many redirects");
    }
}

impl Page {
    /// The first link of the page that leads to an origin.
    pub(crate) fn link_to(&self, origin: &str) -> String {
        self.link_containing(origin).expect("no such link")
    }

    /// The first link of the page whose address holds this text.
    pub(crate) fn link_containing(&self, part: &str) -> Option<String> {
        tags(&self.text, "a")
            .into_iter()
            .filter_map(|link| attribute(link, "href"))
            .find(|address| address.contains(part))
            .map(|address| self.url.join(&address).unwrap().into())
    }

    fn form(&self, action: &str) -> &str {
        self.text
            .split("<form")
            .skip(1)
            .map(|form| form.split("</form>").next().unwrap())
            .find(|form| attribute(form, "action").is_some_and(|target| target.contains(action)))
            .unwrap_or_else(|| panic!("no form for {action} in {}", self.text))
    }
}

/// One request, as the operator's client sends it.
pub(crate) fn request(
    method: &str,
    url: &str,
    body: Option<(&'static str, String)>,
) -> OutboundRequest<'static> {
    let mut request = OutboundRequest::new(method.parse().unwrap(), Url::parse(url).unwrap());
    if let Some((kind, body)) = body {
        request
            .headers
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        request.body = Some(body.into());
    }
    request
}

/// What a form sends: its fields as the page gave them, unless said otherwise.
fn filled(form: &str, fields: &[(&str, &str)]) -> String {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    for input in tags(form, "input") {
        let Some(name) = attribute(input, "name") else {
            continue;
        };
        let unticked = input.contains("checkbox") && !input.contains(" checked");
        if !unticked && !fields.iter().any(|(given, _)| *given == name) {
            body.append_pair(&name, &attribute(input, "value").unwrap_or_default());
        }
    }
    for (name, value) in fields {
        body.append_pair(name, value);
    }
    body.finish()
}

/// The opening tags of one name.
fn tags<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.split(&format!("<{name} "))
        .skip(1)
        .map(|tag| tag.split('>').next().unwrap())
        .collect()
}

/// The value of the first attribute of this name.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag
        .split_once(&format!(" {name}=\""))
        .or_else(|| tag.strip_prefix(&format!("{name}=\"")).map(|rest| ("", rest)))?;
    let value = rest.split('"').next()?;
    Some(
        value
            .replace("&#38;", "&")
            .replace("&amp;", "&")
            .replace("&#34;", "\"")
            .replace("&#39;", "'"),
    )
}
