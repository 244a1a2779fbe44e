//! The way to a server, which can fall silent as it does when a host loses power or a network is cut: nothing is closed,
//! nothing is refused, and nothing comes back. It can also break one connection off, over an answer.

use std::net::Ipv4Addr;

use postern::store::Location;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

/// A way to a server on loopback.
pub struct Link {
    way: watch::Sender<Way>,
}

#[derive(Clone, Copy, Default)]
struct Way {
    is_silent: bool,
    /// How often it fell silent: each connection from before the last time stays so for ever.
    silences: usize,
    /// It falls silent once this has been said to the server.
    last_words: Option<&'static str>,
    /// The next connection that says this to the server is broken off over the answer.
    unanswered: Option<&'static str>,
}

impl Way {
    fn fall_silent(&mut self) {
        *self = Self {
            is_silent: true,
            silences: self.silences + 1,
            ..Self::default()
        };
    }
}

impl Link {
    /// A way to a database's server, and the database at the end of it.
    pub async fn to(location: Location) -> (Self, Location) {
        let Location::Postgres(mut settings) = location else {
            panic!("a file is on no other host")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut url = Url::parse(&settings.url).unwrap();
        let server = url.port().unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        settings.url = url.into();
        let (way, _) = watch::channel(Way::default());
        tokio::spawn(accept(listener, server, way.clone()));
        (Self { way }, Location::Postgres(settings))
    }

    /// The host is gone, as far as anybody can see.
    pub fn vanish(&self) {
        self.way.send_modify(Way::fall_silent);
    }

    /// The host is gone as soon as it has got these words.
    pub fn vanish_after(&self, words: &'static str) {
        self.way.send_modify(|way| way.last_words = Some(words));
    }

    /// The server gets these words once and does what they say; the connection breaks before it can say so.
    pub fn break_off_after(&self, words: &'static str) {
        self.way.send_modify(|way| way.unanswered = Some(words));
    }

    /// Whether a connection is to be broken off still.
    pub fn is_to_break(&self) -> bool {
        self.way.borrow().unanswered.is_some()
    }

    /// Waits until the host is gone.
    pub async fn until_silent(&self) {
        let mut way = self.way.subscribe();
        way.wait_for(|way| way.is_silent).await.unwrap();
    }

    /// Whoever connects from now on reaches the server. The connections of before stay silent.
    pub fn come_back(&self) {
        self.way.send_modify(|way| way.is_silent = false);
    }
}

async fn accept(listener: TcpListener, server: u16, way: watch::Sender<Way>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(lead(client, server, way.clone()));
    }
}

async fn lead(client: TcpStream, server: u16, way: watch::Sender<Way>) {
    let mut ways = way.subscribe();
    let begun = *ways.borrow_and_update();
    if begun.is_silent {
        // Held, and never read.
        let _client = client;
        return std::future::pending().await;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return;
    };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let asking = async {
        let mut part = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut part).await {
            let said = &part[..length];
            let holds = |words: Option<&'static str>| {
                let words = words.map(str::as_bytes);
                words.is_some_and(|words| said.windows(words.len()).any(|some| some == words))
            };
            let now = *way.borrow();
            let (is_last, breaks) = (holds(now.last_words), holds(now.unanswered));
            // Before the server can answer.
            if is_last {
                way.send_modify(Way::fall_silent);
            } else if breaks {
                way.send_modify(|way| way.unanswered = None);
            }
            if to_server.write_all(said).await.is_err() || is_last || breaks {
                return breaks;
            }
        }
        false
    };
    let silent = async {
        // The sender is `way`.
        let _fallen = ways.wait_for(|way| way.silences > begun.silences).await;
    };
    let breaks = tokio::select! {
        biased;
        breaks = asking => breaks,
        () = silent => false,
        // Either side may hang up at any time.
        _ended = tokio::io::copy(&mut from_server, &mut to_client) => false,
    };
    if breaks {
        // What it has answered, it has done.
        let _answered = from_server.read(&mut [0; 1024]).await;
        return;
    }
    if way.borrow().silences > begun.silences {
        let _held = (from_client, to_client, from_server, to_server);
        std::future::pending::<()>().await;
    }
}
