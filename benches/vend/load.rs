//! A closed loop over keep-alive HTTP/1.1 connections: each sends the next request when its answer has come. It runs
//! on one thread of its own, so that its processor time can be told from the server's.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::measure::{Done, failed};

/// What one stretch of load saw.
pub(crate) struct Seen {
    pub(crate) requests: f64,
    pub(crate) per_second: f64,
    pub(crate) half_us: f64,
    pub(crate) tail_us: f64,
    /// Processor time of this process without the load's own thread, per request.
    pub(crate) server_us: f64,
}

/// Keeps `connections` busy for `time`; any answer but a 200 ends it without a figure.
pub(crate) fn run(
    address: &str,
    path: &str,
    key: &str,
    body: &str,
    connections: usize,
    time: Duration,
) -> Done<Seen> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = address.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(drive(&address, request.as_bytes().to_vec(), connections, time))
    })
    .join()
    .map_err(|_| "the load panicked")?
    .map_err(failed)
}

async fn drive(address: &str, request: Vec<u8>, connections: usize, time: Duration) -> Result<Seen, String> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        streams.push(stream);
    }
    let mine = cpu(ClockId::ThreadCPUTime);
    let all = cpu(ClockId::ProcessCPUTime);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(one(stream, request.clone(), begun + time));
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(|error| error.to_string())??);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let server = (cpu(ClockId::ProcessCPUTime) - all) - (cpu(ClockId::ThreadCPUTime) - mine);
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(f64::NAN);
    let requests = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    Ok(Seen {
        requests,
        per_second: requests / elapsed,
        half_us: at(50),
        tail_us: at(99),
        server_us: server * 1e6 / requests,
    })
}

async fn one(mut stream: TcpStream, request: Vec<u8>, end: Instant) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    let mut answer = Vec::with_capacity(8192);
    while Instant::now() < end {
        let begun = Instant::now();
        stream
            .write_all(&request)
            .await
            .map_err(|error| error.to_string())?;
        answer.clear();
        let whole = loop {
            if stream
                .read_buf(&mut answer)
                .await
                .map_err(|error| error.to_string())?
                == 0
            {
                return Err("the server hung up".to_owned());
            }
            if let Some(whole) = length(&answer)? {
                break whole;
            }
        };
        while answer.len() < whole {
            if stream
                .read_buf(&mut answer)
                .await
                .map_err(|error| error.to_string())?
                == 0
            {
                return Err("the server hung up".to_owned());
            }
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        if !answer.starts_with(b"HTTP/1.1 200") {
            // No ratio is made of answers that are not the one measured.
            return Err(String::from_utf8_lossy(&answer).into_owned());
        }
    }
    Ok(times)
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
