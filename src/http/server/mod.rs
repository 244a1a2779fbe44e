//! The listening side: HTTP/1.1 with limits that hold before any handler runs.
//!
//! `axum::serve` sets no limits: a client that sends one byte a minute keeps its connection for ever. So the connection
//! loop is ours. Promises: headers and bodies arrive in time or the connection ends, connections are counted, a panic
//! answers a typed 500, shutdown stops accepting and drains.

mod timed;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tower::ServiceExt as _;

use self::timed::{Busy, Patience, Timed};
use super::guard::{self, RequestIds};

/// What a connection and a request may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; the next ones wait in the listener's backlog.
    pub connections: usize,
    /// How long the headers of a request may take from their first byte; of a new connection's first request, from the
    /// start.
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests; no longer than headers may take while all are in use.
    pub idle_timeout: Duration,
    /// Header fields in a request.
    pub headers: usize,
    /// Bytes buffered for a request's head and a connection's reads; at least 8 KiB.
    pub buffer_bytes: usize,
    /// Bytes in a body, unless the route says otherwise.
    pub body_bytes: usize,
    /// Bytes in a body, whatever the route says.
    pub body_ceiling: usize,
    /// How long a body may take from its head to its last byte.
    pub body_timeout: Duration,
    /// How long requests under way may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            headers: 64,
            buffer_bytes: 32 * 1024,
            body_bytes: 64 * 1024,
            body_ceiling: 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Clean,
    /// This many connections were cut when the time for draining was over.
    Cut(usize),
}

/// The runtime to serve on: a thread for each processor.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(LOOK_EVERY)
        .build()
}

/// Serves `app` until `shutdown` is ready, then drains. Wraps `app` in [`guard::protect`] itself.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    ids: RequestIds,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let app = guard::protect(app, &limits, ids);
    let http = connection_builder(&limits);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let patience = Patience {
        head: limits.header_timeout,
        idle: limits.idle_timeout,
        slots: Arc::clone(&slots),
    };
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);

    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // EMFILE and friends: the connection stays in the backlog, so wait instead of spinning.
                    tracing::warn!(error = %error, "could not accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(
            stream,
            peer,
            slot,
            patience.clone(),
            http.clone(),
            app.clone(),
            graceful.watcher(),
        ));
    }

    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_ok()
    {
        return Drained::Clean;
    }
    while connections.try_join_next().is_some() {}
    let cut = connections.len();
    connections.shutdown().await;
    Drained::Cut(cut)
}

/// Ready when the process is asked to stop: SIGINT or SIGTERM. Pass it to [`serve`].
///
/// # Errors
/// When the signals cannot be watched.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The slot first: at the cap, clients queue in the kernel's bounded backlog and cost this process nothing.
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    patience: Patience,
    http: http1::Builder,
    app: Router,
    watcher: Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "TCP_NODELAY was refused");
    }
    if let Err(error) = keep_little_unsent(&stream) {
        tracing::debug!(error = %error, "TCP_NOTSENT_LOWAT was refused");
    }
    let busy = Busy::default();
    let stream = Timed::new(stream, patience, busy.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = app.clone().oneshot(request.map(Body::new));
        let busy = busy.clone();
        busy.set(true);
        async move {
            let answer = answer.await;
            busy.set(false);
            answer
        }
    });
    let served = watcher
        .watch(http.serve_connection(TokioIo::new(stream), service))
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection ended: {error}");
    }
    drop(slot);
}

/// Lets the system take little of an answer before the client does. Else it takes megabytes at once, and nothing more until
/// a third of them is read: a client that reads slowly all the while would seem to read nothing.
#[cfg(target_os = "linux")]
fn keep_little_unsent(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

/// Known on Linux only.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "on Linux it may fail")]
fn keep_little_unsent(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

fn connection_builder(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_headers(limits.headers)
        .max_buf_size(limits.buffer_bytes.max(SMALLEST_BUFFER))
        .max_header_size(limits.buffer_bytes.max(SMALLEST_BUFFER))
        .keep_alive(true)
        // A client may say that it has nothing more to send, and still wait for its answer.
        .half_close(true);
    http
}

/// After so many tasks a busy thread looks whose request came meanwhile. Judging a call takes as long as answering ten;
/// at tokio's 61, whoever is to be refused waited for dozens of those before anybody noticed.
const LOOK_EVERY: u32 = 11;
/// Bytes of an answer that the system keeps unsent. More is written once half of them are sent: a client that reads so much
/// in the time for a head keeps its slot.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 32 * 1024;
/// hyper panics below this.
const SMALLEST_BUFFER: usize = 8 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
