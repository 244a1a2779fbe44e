//! The one address of a provider, with a door that shuts: connections are refused, or taken and never answered.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How the provider is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As usual.
    Open,
    /// Not at all: every connection is closed.
    Shut,
    /// Connections are taken; nothing ever comes back.
    Silent,
}

/// A door on a port of its own.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    behind: watch::Sender<Option<SocketAddr>>,
}

impl Door {
    /// An open door; nothing is behind it yet.
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        let (behind, target) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let Ok((guest, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(lead(guest, ways.clone(), *target.borrow()));
            }
        });
        Self { address, way, behind }
    }

    /// Says who is behind it.
    pub(crate) fn leads_to(&self, address: SocketAddr) {
        self.behind.send_replace(Some(address));
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn lead(mut guest: TcpStream, mut ways: watch::Receiver<Way>, behind: Option<SocketAddr>) {
    let way = *ways.borrow_and_update();
    match (way, behind) {
        (Way::Open, Some(address)) => {
            let Ok(mut host) = TcpStream::connect(address).await else {
                return;
            };
            tokio::select! {
                // Either side may hang up at any time.
                _ended = tokio::io::copy_bidirectional(&mut guest, &mut host) => {}
                _changed = ways.changed() => {}
            }
        }
        (Way::Silent, _) => {
            let _changed = ways.changed().await;
        }
        (Way::Shut | Way::Open, _) => {}
    }
}
