//! Token answers as providers give them, and the requests that ask for them.

mod answers;
mod authorization;
mod revocation;
mod wire;

use std::sync::Arc;

use super::*;
use crate::connectors::{Catalogue, Options};

const ORIGIN: &str = "http://127.0.0.1:4701";

fn at(origin: &str, id: &str) -> Arc<Connector> {
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: Some(origin),
        ..Options::default()
    })
    .unwrap();
    Arc::clone(catalogue.get(&id.parse().unwrap()).unwrap())
}

fn connector(id: &str) -> Arc<Connector> {
    at(ORIGIN, id)
}
