//! A closed loop over keep-alive HTTP/1.1 connections: each sends the next request when its answer has come. It runs
//! on one thread of its own, so that its processor time can be told from the server's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::measure::{Done, failed};

/// Whole requests that are sent in turn.
pub(crate) type Requests = Arc<[Vec<u8>]>;

/// What one stretch of load saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) count: f64,
    pub(crate) per_second: f64,
    pub(crate) half_us: f64,
    pub(crate) tail_us: f64,
    /// Processor time of this process without the load's own thread, per request.
    pub(crate) server_us: f64,
}

impl Seen {
    /// Of the times of every answer, in microseconds.
    pub(crate) fn of(mut times: Vec<f64>, elapsed: f64, server: f64) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(f64::NAN);
        let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
        Self {
            count,
            per_second: count / elapsed,
            half_us: at(50),
            tail_us: at(99),
            server_us: server * 1e6 / count,
        }
    }
}

/// Keeps `connections` busy for `time`; any answer but a 200 ends it without a figure.
pub(crate) fn run(address: &str, requests: Requests, connections: usize, time: Duration) -> Done<Seen> {
    let address = address.to_owned();
    on_a_thread(move || drive(address, requests, connections, Some(time)))
}

/// Sends every request once, over so many connections; any answer but a 200 ends it without a figure.
pub(crate) fn once(address: &str, requests: Requests, connections: usize) -> Done<Seen> {
    let address = address.to_owned();
    on_a_thread(move || drive(address, requests, connections, None))
}

/// Runs a load on a thread of its own.
pub(crate) fn on_a_thread<T, F>(load: impl FnOnce() -> F + Send + 'static) -> Done<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>>,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(load())
    })
    .join()
    .map_err(|_| "the load panicked")?
    .map_err(failed)
}

/// For a time, or until every request was sent.
async fn drive(
    address: String,
    requests: Requests,
    connections: usize,
    time: Option<Duration>,
) -> Result<Seen, String> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(Connection::open(&address).await?);
    }
    let mine = cpu(ClockId::ThreadCPUTime);
    let all = cpu(ClockId::ProcessCPUTime);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let requests = Arc::clone(&requests);
        match time {
            Some(time) => tasks.spawn(one(stream, requests, number, begun + time)),
            None => tasks.spawn(share(stream, requests, number, connections)),
        };
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(|error| error.to_string())??);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let server = (cpu(ClockId::ProcessCPUTime) - all) - (cpu(ClockId::ThreadCPUTime) - mine);
    Ok(Seen::of(times, elapsed, server))
}

/// Each connection begins with another request, so that those at work at one time are of different orgs.
async fn one(
    mut connection: Connection,
    requests: Requests,
    first: usize,
    end: Instant,
) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for request in requests.iter().cycle().skip(first % requests.len().max(1)) {
        times.push(connection.served(request).await?);
        if Instant::now() >= end {
            break;
        }
    }
    Ok(times)
}

/// One connection's share of requests that are sent once.
async fn share(
    mut connection: Connection,
    requests: Requests,
    first: usize,
    connections: usize,
) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for request in requests.iter().skip(first).step_by(connections.max(1)) {
        times.push(connection.served(request).await?);
    }
    Ok(times)
}

/// A connection that waits for each answer before it asks again.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self {
            address: address.to_owned(),
            stream,
            answer: Vec::with_capacity(8192),
        })
    }

    /// Sends one request that has to be served; how long it took, in microseconds.
    async fn served(&mut self, request: &[u8]) -> Result<f64, String> {
        let begun = Instant::now();
        let status = self.ask(request).await?;
        let time_us = begun.elapsed().as_secs_f64() * 1e6;
        if status != 200 {
            // No ratio is made of answers that are not the one measured.
            return Err(String::from_utf8_lossy(&self.answer).into_owned());
        }
        Ok(time_us)
    }

    /// Sends one request and reads the whole answer; its status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16, String> {
        // Nobody asked for a while: the server closes idle connections, and clients open new ones.
        if matches!(self.stream.try_read(&mut [0]), Ok(0)) {
            *self = Self::open(&self.address).await?;
        }
        self.stream
            .write_all(request)
            .await
            .map_err(|error| error.to_string())?;
        self.answer.clear();
        let mut whole = None;
        while whole.is_none_or(|whole| self.answer.len() < whole) {
            let read = self.stream.read_buf(&mut self.answer).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the server hung up".to_owned());
            }
            if whole.is_none() {
                whole = length(&self.answer)?;
            }
        }
        self.answer
            .get(9..12)
            .and_then(|status| std::str::from_utf8(status).ok())
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| "an answer without a status".to_owned())
    }
}

/// Bytes of the whole answer, once its head is there.
fn length(answer: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = answer.get(..head).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "a head that is not text")?;
    let body = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse::<usize>().ok())
        .ok_or("an answer without a length")?;
    Ok(Some(head + 4 + body))
}

/// Processor seconds of the calling thread or of the whole process.
pub(crate) fn cpu(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    let (Ok(seconds), Ok(nanos)) = (u32::try_from(now.tv_sec), u32::try_from(now.tv_nsec)) else {
        return f64::NAN;
    };
    f64::from(seconds) + f64::from(nanos) / 1e9
}
