//! An open loop: requests come when they are due, whatever became of those before them. A time is counted from when
//! its request was due, so waiting for a turn is not hidden.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

use crate::{
    load::{Connection, Requests, Seen, on_a_thread},
    measure::Done,
};

/// What came of the requests.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Those answered with 200; the rate is of those answered while there were new ones.
    pub(crate) served: Seen,
    /// Those refused with 429 or 503.
    pub(crate) refused: Seen,
    /// How many were never sent: every connection was waiting for an answer, and as many requests for a connection.
    pub(crate) unsent: f64,
}

/// Asks `rate` times a second for `time`, then waits for the last answers; any other answer ends it without a figure.
pub(crate) fn run(
    address: &str,
    requests: Requests,
    rate: f64,
    time: Duration,
    connections: usize,
) -> Done<Outcome> {
    let address = address.to_owned();
    on_a_thread(move || drive(address, requests, rate, time, connections))
}

/// A request that is due, and which.
type Due = (Instant, usize);

/// A status, when it was answered, and how long after it was due, in microseconds.
type Answered = (u16, Instant, f64);

async fn drive(
    address: String,
    requests: Requests,
    rate: f64,
    time: Duration,
    connections: usize,
) -> Result<Outcome, String> {
    let (ask, asked) = mpsc::channel::<Due>(connections);
    let asked = Arc::new(Mutex::new(asked));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let connection = Connection::open(&address).await?;
        tasks.spawn(one(connection, Arc::clone(&requests), Arc::clone(&asked)));
    }
    let begun = Instant::now();
    let end = begun + time;
    let gap = Duration::from_secs_f64(1.0 / rate);
    let (mut at, mut number, mut unsent) = (begun, 0, 0.0);
    while at < end {
        while at <= Instant::now() {
            if ask.try_send((at, number)).is_err() {
                unsent += 1.0;
            }
            number += 1;
            at += gap;
        }
        tokio::time::sleep(TICK).await;
    }
    // The connections end when nobody can ask them any more.
    drop(ask);
    let (mut served, mut refused, mut in_time) = (Vec::new(), Vec::new(), 0_u32);
    while let Some(done) = tasks.join_next().await {
        for (status, answered, time_us) in done.map_err(|error| error.to_string())?? {
            match status {
                200 => served.push(time_us),
                429 | 503 => refused.push(time_us),
                other => return Err(format!("answered {other}")),
            }
            in_time += u32::from(status == 200 && answered <= end);
        }
    }
    let elapsed = time.as_secs_f64();
    let mut served = Seen::of(served, elapsed, f64::NAN);
    served.per_second = f64::from(in_time) / elapsed;
    Ok(Outcome {
        served,
        refused: Seen::of(refused, elapsed, f64::NAN),
        unsent,
    })
}

/// Whoever is free takes the next request.
async fn one(
    mut connection: Connection,
    requests: Requests,
    asked: Arc<Mutex<mpsc::Receiver<Due>>>,
) -> Result<Vec<Answered>, String> {
    let mut answers = Vec::new();
    loop {
        let due = asked.lock().await.recv().await;
        let Some((at, number)) = due else {
            return Ok(answers);
        };
        let request = requests.get(number % requests.len()).ok_or("no request")?;
        let status = connection.ask(request).await?;
        answers.push((status, Instant::now(), at.elapsed().as_secs_f64() * 1e6));
    }
}

/// How often is looked what is due.
const TICK: Duration = Duration::from_millis(1);
