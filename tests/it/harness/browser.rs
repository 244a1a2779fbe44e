//! A person's browser, without the browser: link → provider → callback → confirm.

use std::collections::BTreeSet;

use postern::{
    crypto::{lookup::show_link, random},
    domain::{
        AgentId, GrantId, OrgId, ScopeSet, UserId,
        connector::Category,
        secret::{AuthorizationCode, LinkToken},
    },
    egress::{OutboundRequest, operator_client},
    flows::{
        Deps,
        choices::Choice,
        connect::{
            ConnectFailure, Visitor,
            begin::{self, Ask},
            callback::{self, Answer},
            confirm::{self, Confirmed},
        },
    },
    http::cookie,
};
use url::Url;

use super::World;

/// How a connection ended.
#[derive(Debug)]
pub enum Outcome {
    Granted(GrantId),
    Failed(ConnectFailure),
}

/// A session under way: link, cookie and what the provider sent back.
pub struct Journey {
    pub link: LinkToken,
    pub cookie: LinkToken,
    pub visitor: Visitor,
}

/// Connects Acme Mail for `user` with `account`, deciding `deny` at the provider if asked to.
pub async fn connect_as(
    world: &World,
    user: UserId,
    account: &str,
    categories: &[Category],
    deny: bool,
) -> Outcome {
    let journey = Journey::begin(world, user, None).await;
    let answer = journey.consent(world, account, deny).await;
    match journey.finish(world, answer, categories).await {
        Ok(grant) => Outcome::Granted(grant),
        Err(failure) => Outcome::Failed(failure),
    }
}

impl Journey {
    /// Makes a link and spends it.
    pub async fn begin(world: &World, user: UserId, reconnect: Option<GrantId>) -> Self {
        Self::begin_with(world, user, reconnect, None).await
    }

    /// The same, asking for these scopes only.
    pub async fn begin_with(
        world: &World,
        user: UserId,
        reconnect: Option<GrantId>,
        scopes: Option<ScopeSet>,
    ) -> Self {
        let ask = Ask {
            scopes,
            reconnect,
            ..Ask::new(user, world.connector.clone())
        };
        Self::begin_in(&world.deps, world.org, ask).await
    }

    /// The same in any organisation.
    pub async fn begin_in(deps: &Deps, org: OrgId, ask: Ask) -> Self {
        let visitor = Visitor {
            user: Some((org, ask.user)),
        };
        let link = begin::create(deps, org, ask).await.unwrap();
        let text = link.url.rsplit('/').next().unwrap();
        let link = random::parse_link_token(text).unwrap();
        let cookie = begin::go(deps, &link, visitor).await.unwrap();
        Self {
            link,
            cookie,
            visitor,
        }
    }

    /// What the provider sends back after the person chose an account and decided.
    pub async fn consent(&self, world: &World, account: &str, deny: bool) -> Answer {
        let back = self.way_back(world, account, deny).await;
        let get = |wanted: &str| {
            back.query_pairs()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        Answer {
            code: get("code").map(AuthorizationCode::new),
            state: get("state"),
            error: get("error"),
            iss: get("iss"),
        }
    }

    /// The address the provider sends the browser back to.
    pub async fn way_back(&self, world: &World, account: &str, deny: bool) -> Url {
        let url = begin::provider_url(&world.deps, &self.link, self.visitor)
            .await
            .unwrap();
        let url = Url::parse(&url).unwrap();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in url.query_pairs() {
            form.append_pair(&name, &value);
        }
        form.append_pair("account", account);
        form.append_pair("decision", if deny { "deny" } else { "allow" });
        let scope = url
            .query_pairs()
            .find(|(name, _)| name == "scope")
            .map(|(_, value)| value.into_owned());
        for scope in scope.unwrap_or_default().split(' ') {
            form.append_pair(&format!("scope.{scope}"), "on");
        }
        let body = Some(("application/x-www-form-urlencoded", form.finish()));
        let (status, headers, body) = send("POST", &format!("{}/authorize", world.acme), body, &[]).await;
        assert_eq!(status, 303, "{}", String::from_utf8_lossy(&body));
        Url::parse(headers["location"].to_str().unwrap()).unwrap()
    }

    /// The cookie that binds the session to this browser, as the browser sends it to the callback.
    pub fn binding(&self) -> String {
        let [browser, link] = [&self.cookie, &self.link].map(show_link);
        format!("{}={browser}.{link}", cookie::CONNECT.name(false))
    }

    /// The callback and the person's confirmation.
    pub async fn finish(
        &self,
        world: &World,
        answer: Answer,
        categories: &[Category],
    ) -> Result<GrantId, ConnectFailure> {
        self.come_back(world, answer).await?;
        self.confirm(world, categories).await
    }

    /// The person's confirmation.
    pub async fn confirm(&self, world: &World, categories: &[Category]) -> Result<GrantId, ConnectFailure> {
        self.confirm_for(world, world.agent.agent, categories).await
    }

    /// The same for an agent of their own org.
    pub async fn confirm_for(
        &self,
        world: &World,
        agent: AgentId,
        categories: &[Category],
    ) -> Result<GrantId, ConnectFailure> {
        let choice = Choice {
            agent,
            categories: categories.iter().copied().collect::<BTreeSet<_>>(),
            raw: false,
        };
        let confirmed = confirm::confirm(
            &world.deps,
            &self.link,
            Some(&self.cookie),
            self.visitor,
            vec![choice],
        )
        .await?;
        match confirmed {
            Confirmed::Connected(grant) => Ok(grant),
            Confirmed::Waiting(_) => panic!("this person is managed by a host"),
        }
    }

    /// The callback alone.
    pub async fn come_back(&self, world: &World, answer: Answer) -> Result<(), ConnectFailure> {
        let cookie = random::parse_link_token(&show_link(&self.cookie)).unwrap();
        callback::receive(&world.deps, &world.connector, answer, Some(cookie), self.visitor)
            .await
            .map(drop)
    }
}

/// One plain request.
pub async fn send(
    method: &str,
    url: &str,
    body: Option<(&'static str, String)>,
    headers: &[(&'static str, &str)],
) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut request = OutboundRequest::new(method.parse().unwrap(), Url::parse(url).unwrap());
    if let Some((kind, body)) = body {
        request
            .headers
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        request.body = Some(body.into_bytes().into());
    }
    for (name, value) in headers {
        request.headers.insert(*name, value.parse().unwrap());
    }
    let answer = operator_client().unwrap().send(request).await.unwrap();
    (answer.status, answer.headers, answer.body.to_vec())
}
