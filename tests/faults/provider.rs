//! The Acme Mail beside the process: what it is told to do, and what it saw.

use std::{sync::Arc, time::Duration};

use postern::app::clock::SystemClock;
use serde_json::{Value, json};

use crate::{
    served::CONNECTOR,
    server::{Server, call},
    shared::loopback,
};

/// How the authorization server treats a refresh token that it rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// It is spent, and sending it again ends everything.
    Strict,
    /// It may be sent again for 60 s.
    Grace,
}

impl Rotation {
    pub(crate) fn grace_s(self) -> u32 {
        match self {
            Self::Strict => 0,
            Self::Grace => 60,
        }
    }
}

impl Server {
    /// Acme Mail lets Ada's access tokens expire now.
    pub(crate) async fn expire(&self) {
        let url = format!("{}/admin/expire", self.acme);
        call("POST", &url, "", Some(json!({"account": "ada@acme.example"})))
            .await
            .unwrap();
    }

    /// Acme Mail ends what Ada allowed.
    pub(crate) async fn disconnect(&self) {
        let url = format!("{}/admin/disconnect", self.acme);
        call("POST", &url, "", Some(json!({"account": "ada@acme.example"})))
            .await
            .unwrap();
    }

    /// Acme Mail misbehaves.
    pub(crate) async fn fault(&self, fault: Value) {
        let url = format!("{}/admin/fault", self.acme);
        call("POST", &url, "", Some(fault)).await.unwrap();
    }

    /// Acme Mail behaves.
    pub(crate) async fn no_fault(&self) {
        let url = format!("{}/admin/fault", self.acme);
        call("DELETE", &url, "", None).await.unwrap();
    }

    /// How many requests to renew a token Acme Mail has received.
    pub(crate) async fn refreshes(&self) -> usize {
        let log = self.log().await;
        log.iter().filter(renews).count()
    }

    /// Whether the last request to renew a token bore the refresh token that Acme Mail had given last.
    pub(crate) async fn sent_what_was_given(&self) -> bool {
        let log = self.log().await;
        let last = log.iter().rposition(|entry| renews(&entry)).unwrap();
        let given = log[..last]
            .iter()
            .rev()
            .find_map(|entry| entry["issued_refresh_sha256"].as_str());
        given.is_some() && log[last]["token_sha256"].as_str() == given
    }

    /// How many requests of one kind Acme Mail has received.
    pub(crate) async fn seen(&self, kind: &str) -> usize {
        self.log()
            .await
            .iter()
            .filter(|entry| entry["kind"] == kind)
            .count()
    }

    /// Which tokens Acme Mail was asked to end, in order.
    pub(crate) async fn asked_to_end(&self) -> Vec<Value> {
        let log = self.log().await;
        let calls = log.into_iter().filter(|entry| entry["kind"] == "revoke");
        calls.map(|entry| entry["token_sha256"].clone()).collect()
    }

    /// Empties Acme Mail's log of requests: it keeps the last 100,000 only, and a count of late ones needs them all.
    pub(crate) async fn forget_seen(&self) {
        let url = format!("{}/admin/reset-log", self.acme);
        let (status, _) = call("POST", &url, "", None).await.unwrap();
        assert_eq!(status, 204);
    }

    async fn log(&self) -> Vec<Value> {
        let url = format!("{}/admin/log", self.acme);
        let (_, log) = call("GET", &url, "", None).await.unwrap();
        log.as_array()
            .or_else(|| log["entries"].as_array())
            .unwrap()
            .clone()
    }
}

fn renews(entry: &&Value) -> bool {
    entry["kind"] == "token" && entry["grant_type"] == "refresh_token"
}

/// Starts one for a Postern at this address.
pub(crate) async fn start_acme(rotation: Rotation, postern: &str) -> String {
    let (listener, origin) = loopback::listen().await;
    let acme = loopback::acme(&origin, Arc::new(SystemClock), postern, &[CONNECTOR])
        .with_rotation_grace(Duration::from_secs(rotation.grace_s().into()));
    tokio::spawn(loopback::serve(listener, acme.router()));
    origin
}
