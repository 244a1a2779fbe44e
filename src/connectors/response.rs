//! What of a provider's answer an agent may see.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::HeaderMap;
use serde_json::Value;
use url::form_urlencoded;

use super::{Tool, lookup};
use crate::{domain::secret::AccessToken, egress::InboundResponse};

const REDACTED: &str = "[redacted]";

/// The only headers that pass. An allow list: a header that nobody thought of may carry a session.
const HEADERS: [&str; 12] = [
    "content-language",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "retry-after",
    "x-github-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
    "x-slack-req-id",
];

/// An answer without cookies, credentials and echoes of the token.
#[derive(Debug, Clone, PartialEq)]
pub struct FilteredResponse {
    /// The provider's status.
    pub status: u16,
    /// Whether the action succeeded: status 2xx, and what the tool's definition demands of the body.
    pub success: bool,
    /// The headers that pass, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: FilteredBody,
}

/// The body of a filtered answer.
#[derive(Debug, Clone, PartialEq)]
pub enum FilteredBody {
    /// There was none.
    Empty,
    /// JSON, whatever the content type said.
    Json(Value),
    /// Other text.
    Text(String),
    /// Longer than the limit (1 MiB); nothing of it is kept.
    TooLarge,
    /// Neither JSON nor text; nothing of it is kept.
    Binary,
}

/// Filters the answer to a call that carried `token`.
#[must_use]
pub fn filter(tool: Tool<'_>, response: &InboundResponse, token: &AccessToken) -> FilteredResponse {
    let echo = Echo::of(token.expose_secret());
    let action = match tool {
        Tool::Typed(action) => Some(action),
        Tool::HttpRequest => None,
    };
    let mut body = body(response);
    let rule = action.and_then(|action| action.success.as_ref());
    let success = response.is_success()
        && match &body {
            FilteredBody::Json(value) => lookup::succeeds(rule, value),
            _ => rule.is_none(),
        };
    match &mut body {
        FilteredBody::Json(value) => {
            for path in action
                .map(|action| action.response.redact.as_slice())
                .unwrap_or_default()
            {
                redact(value, &path.split('.').collect::<Vec<_>>());
            }
            echo.remove(value);
        }
        FilteredBody::Text(text) => echo.remove_text(text),
        FilteredBody::Empty | FilteredBody::TooLarge | FilteredBody::Binary => {}
    }
    FilteredResponse {
        status: response.status,
        success,
        headers: headers(&response.headers, &echo),
        body,
    }
}

fn body(response: &InboundResponse) -> FilteredBody {
    if response.truncated {
        return FilteredBody::TooLarge;
    }
    if response.body.is_empty() {
        return FilteredBody::Empty;
    }
    let Ok(text) = std::str::from_utf8(&response.body) else {
        return FilteredBody::Binary;
    };
    match serde_json::from_str(text) {
        Ok(value) => FilteredBody::Json(value),
        Err(_) if text.contains('\0') => FilteredBody::Binary,
        Err(_) => FilteredBody::Text(text.to_owned()),
    }
}

fn headers(headers: &HeaderMap, echo: &Echo) -> BTreeMap<String, String> {
    HEADERS
        .into_iter()
        .filter_map(|name| {
            let mut value = headers.get(name)?.to_str().ok()?.to_owned();
            echo.remove_text(&mut value);
            Some((name.to_owned(), value))
        })
        .collect()
}

/// Replaces what the path names; `*` stands for every item or member.
fn redact(value: &mut Value, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        *value = Value::String(REDACTED.to_owned());
        return;
    };
    match value {
        Value::Object(members) if *first == "*" => members.values_mut().for_each(|value| redact(value, rest)),
        Value::Array(items) if *first == "*" => items.iter_mut().for_each(|value| redact(value, rest)),
        Value::Object(members) => {
            if let Some(value) = members.get_mut(*first) {
                redact(value, rest);
            }
        }
        _ => {}
    }
}

/// Finds a secret that the provider sent back, also encoded.
struct Echo {
    exact: String,
    base64: Vec<String>,
}

impl Echo {
    fn of(secret: &str) -> Self {
        // Base64 of a text that holds the secret holds one of three strings, by the secret's place modulo 3. The
        // characters at both ends depend on the neighbours and are left out.
        let base64 = (0..3)
            .filter_map(|offset| {
                let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
                let encoded = BASE64_STANDARD_NO_PAD.encode(&padded);
                let from = [0, 2, 3].get(offset).copied()?;
                let to = padded.len() / 3 * 4;
                encoded
                    .get(from..to)
                    .filter(|core| core.len() >= 8)
                    .map(str::to_owned)
            })
            .collect();
        Self {
            exact: secret.to_owned(),
            base64,
        }
    }

    /// Whether the secret is in the text in any form.
    fn is_in(&self, text: &str) -> bool {
        if self.exact.is_empty() {
            return false;
        }
        if text.contains(&self.exact) {
            return true;
        }
        let standard = || text.replace('-', "+").replace('_', "/");
        if self.base64.iter().any(|core| text.contains(core))
            || self.base64.iter().any(|core| standard().contains(core))
        {
            return true;
        }
        // Percent- and form-encoding, once and twice over.
        text.contains(['%', '+']) && {
            let once = decoded(text);
            once.contains(&self.exact) || decoded(&once).contains(&self.exact)
        }
    }

    fn remove_text(&self, text: &mut String) {
        if !self.exact.is_empty() && text.contains(&self.exact) {
            *text = text.replace(&self.exact, REDACTED);
        }
        if self.is_in(text) {
            // Where it is encoded there is no telling which characters are its own.
            REDACTED.clone_into(text);
        }
    }

    fn remove(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.remove_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.remove(item)),
            Value::Object(members) => {
                if members.keys().any(|name| self.is_in(name)) {
                    members.retain(|name, _| !self.is_in(name));
                }
                members.values_mut().for_each(|value| self.remove(value));
            }
            Value::Number(number) if number.to_string() == self.exact => *value = REDACTED.into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;

        self.exact.zeroize();
        self.base64.iter_mut().for_each(zeroize::Zeroize::zeroize);
    }
}

fn decoded(text: &str) -> String {
    // `a=` makes the whole text one value, unless it holds `&`; then the values are looked at together.
    form_urlencoded::parse(format!("a={text}").as_bytes())
        .flat_map(|(name, value)| [name.into_owned(), value.into_owned()])
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    use http::HeaderValue;
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::connector::ActionDefinition;

    const SECRET: &str = "xoxp-123/se+cret=42~canary";

    fn answer(body: &str) -> InboundResponse {
        InboundResponse {
            status: 200,
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
            truncated: false,
        }
    }

    fn filtered(response: &InboundResponse) -> FilteredResponse {
        filter(Tool::HttpRequest, response, &AccessToken::new(SECRET.to_owned()))
    }

    #[test]
    fn no_echo_of_the_token_survives_in_any_form() {
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let form: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let twice: String = form_urlencoded::byte_serialize(form.as_bytes()).collect();
        for echo in [
            SECRET.to_owned(),
            format!("Bearer {SECRET} and again {SECRET}"),
            percent.clone(),
            format!("https://x.example/?a=1&token={form}&b=2"),
            twice,
            BASE64_STANDARD.encode(SECRET),
            BASE64_STANDARD.encode(format!("a{SECRET}")),
            BASE64_STANDARD.encode(format!("ab{SECRET}cd")),
            BASE64_URL_SAFE.encode(format!("user:{SECRET}")),
            format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{SECRET}:x-oauth-basic"))
            ),
        ] {
            for body in [
                json!({"deep": [{"x": echo}]}).to_string(),
                json!({ echo.as_str(): 1 }).to_string(),
                format!("text before {echo} after"),
            ] {
                let shown = format!("{:?}", filtered(&answer(&body)));
                let plain = form_urlencoded::parse(format!("a={shown}").as_bytes())
                    .map(|(_, value)| value.into_owned())
                    .collect::<String>();
                assert!(
                    !shown.contains(&echo) && !shown.contains(SECRET) && !plain.contains("canary"),
                    "{body}: {shown}"
                );
            }
        }
    }

    #[test]
    fn what_holds_no_token_is_untouched() {
        let body = json!({"text": "100% of a+b, c%20d", "n": 7, "list": [true, null]});
        assert_eq!(
            filtered(&answer(&body.to_string())).body,
            FilteredBody::Json(body)
        );
        let text = "<p>50% + more</p>";
        assert_eq!(filtered(&answer(text)).body, FilteredBody::Text(text.to_owned()));
    }

    #[test]
    fn cookies_and_credentials_do_not_pass() {
        let mut response = answer("{}");
        for (name, value) in [
            ("set-cookie", "session=1"),
            ("www-authenticate", "Bearer"),
            ("authorization", "Bearer x"),
            ("location", "https://x.example/?token=y"),
            ("x-new-session", "z"),
            ("content-type", "application/json"),
            ("x-request-id", SECRET),
        ] {
            response.headers.insert(name, HeaderValue::from_static(value));
        }
        let headers = filtered(&response).headers;
        assert_eq!(
            headers.into_iter().collect::<Vec<_>>(),
            [
                ("content-type".to_owned(), "application/json".to_owned()),
                ("x-request-id".to_owned(), REDACTED.to_owned())
            ]
        );
    }

    #[test]
    fn bodies_that_cannot_be_shown_are_left_out() {
        assert_eq!(filtered(&answer("")).body, FilteredBody::Empty);
        let mut response = answer("");
        response.truncated = true;
        assert_eq!(filtered(&response).body, FilteredBody::TooLarge);
        response = answer("");
        response.body = Zeroizing::new(vec![0xff, 0xfe, 0x00]);
        assert_eq!(filtered(&response).body, FilteredBody::Binary);
    }

    #[test]
    fn named_paths_are_redacted_and_success_is_told_by_the_body() {
        let action: ActionDefinition = serde_json::from_value(json!({
            "name": "t", "title": "T", "category": "read", "summary": "s",
            "request": {"method": "GET", "url": "https://x.example/t"},
            "success": {"path": "ok", "equals": true},
            "response": {"redact": ["*.url", "key.secret", "none.at.all"]}
        }))
        .unwrap();
        let token = AccessToken::new("t0ken-t0ken".to_owned());
        let body = json!({"ok": true, "a": {"url": "x", "b": 1}, "key": {"secret": {"deep": 1}}});
        let result = filter(Tool::Typed(&action), &answer(&body.to_string()), &token);
        assert!(result.success);
        assert_eq!(
            result.body,
            FilteredBody::Json(
                json!({"ok": true, "a": {"url": REDACTED, "b": 1}, "key": {"secret": REDACTED}})
            )
        );
        for body in ["{\"ok\":false}", "{}", "", "text"] {
            assert!(
                !filter(Tool::Typed(&action), &answer(body), &token).success,
                "{body}"
            );
        }
    }
}
