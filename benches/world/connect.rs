//! Connecting an account by the real flows, the person's browser included.

use std::{collections::BTreeSet, sync::Arc};

use postern::{
    crypto::random,
    domain::{
        GrantId, UserId,
        connector::{Category, ConnectorId},
        secret::AuthorizationCode,
    },
    egress::{OutboundRequest, operator_client},
    flows::{
        Deps,
        actions::Caller,
        connect::{
            Visitor, begin,
            callback::{self, Answer},
            confirm::{self, Choice, Confirmed},
        },
    },
};
use url::Url;

use crate::measure::{Done, failed};

/// Link → provider → callback → confirm, as a person's browser goes.
pub(super) async fn connect(deps: &Arc<Deps>, acme: &str, agent: Caller, user: UserId) -> Done<GrantId> {
    let link = begin::create(deps, agent.org, begin::Ask::new(user, acme_mail()?)).await?;
    let text = link.url.rsplit('/').next().ok_or("no link")?;
    let link = random::parse_link_token(text).ok_or("no link")?;
    let visitor = Visitor {
        user: Some((agent.org, user)),
    };
    let cookie = begin::go(deps, &link, visitor).await.map_err(failed)?;
    let url = begin::provider_url(deps, &link, visitor).await.map_err(failed)?;
    let answer = consent(acme, &Url::parse(&url)?).await?;
    let text = postern::crypto::lookup::show_link(&cookie);
    let brought = random::parse_link_token(&text).ok_or("no cookie")?;
    callback::receive(deps, &acme_mail()?, answer, Some(brought), visitor)
        .await
        .map_err(failed)?;
    let choice = Choice {
        agent: agent.agent,
        categories: BTreeSet::from([Category::Read, Category::Write]),
        raw: false,
    };
    match confirm::confirm(deps, &link, Some(&cookie), visitor, vec![choice])
        .await
        .map_err(failed)?
    {
        Confirmed::Connected(grant) => Ok(grant),
        Confirmed::Waiting(_) => Err("this person is managed by a host".into()),
    }
}

/// Ada allows everything that is asked for.
async fn consent(acme: &str, asked: &Url) -> Done<Answer> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in asked.query_pairs() {
        form.append_pair(&name, &value);
        if name == "scope" {
            for scope in value.split(' ') {
                form.append_pair(&format!("scope.{scope}"), "on");
            }
        }
    }
    form.append_pair("account", "ada@acme.example");
    form.append_pair("decision", "allow");
    let mut request = OutboundRequest::new(http::Method::POST, Url::parse(&format!("{acme}/authorize"))?);
    request.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    request.body = Some(form.finish().into_bytes().into());
    let answer = operator_client()?.send(request).await?;
    let back = answer
        .headers
        .get("location")
        .ok_or("the provider sent nobody back")?;
    let back = Url::parse(back.to_str()?)?;
    let get = |wanted: &str| {
        back.query_pairs()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    Ok(Answer {
        code: get("code").map(AuthorizationCode::new),
        state: get("state"),
        error: get("error"),
        iss: get("iss"),
    })
}

pub(super) fn acme_mail() -> Done<ConnectorId> {
    "acme-mail".parse().map_err(failed)
}
