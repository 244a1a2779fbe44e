//! What listens on loopback beside a test or a measurement: Acme Mail, and whatever is served as `postern serve` would.

use std::{net::Ipv4Addr, sync::Arc};

use axum::Router;
use postern::{
    crypto::OsRandomness,
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::Clock,
    http::{guard::RequestIds, server},
};
use tokio::net::TcpListener;

/// A port that was free, and the origin it is reached at.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}

/// Serves `app` with the usual limits; it never ends by itself.
pub(crate) async fn serve(listener: TcpListener, app: Router) {
    let ids = RequestIds::new(&OsRandomness::new()).unwrap();
    let limits = server::Limits::default();
    server::serve(listener, app, limits, ids, std::future::pending()).await;
}

/// An Acme Mail known at `issuer` that sends browsers back to the callbacks of these connectors of a Postern.
pub(crate) fn acme(issuer: &str, clock: Arc<dyn Clock>, postern: &str, connectors: &[&str]) -> AcmeMail {
    let callback = |connector: &&str| RedirectUri::Exact(format!("{postern}/callback/{connector}"));
    AcmeMail::new(acme_mail::Options {
        clock,
        random: Arc::new(OsRandomness::new()),
        issuer: issuer.to_owned(),
        client: acme_mail::Client {
            id: acme_mail::DEMO_CLIENT_ID.to_owned(),
            name: "Postern (test)".to_owned(),
            secret: None,
            redirect_uris: connectors.iter().map(callback).collect(),
        },
    })
}
