//! I3: `kill -9` before every n-th system call of a rotation, from the call that needs it to its answer. Never lost with a
//! grace, never silently lost without: which step of ours it strikes does not matter and is not known.
//!
//! A long run strikes at every call there is, any other run at a hundred in all, drawn evenly; a failure prints what to set
//! to draw the same again. Every strike kills: one that comes after a rotation's last call is made again, earlier.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};

use postern::{app::clock::SystemClock, domain::Clock as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    database,
    provider::Rotation,
    rotation::{goes_on, said, settled},
    server::Server,
};

/// Watches the calls of a process (`system_calls.py`). Dropping it lets the process be.
struct Tracer {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Tracer {
    /// Watches a process, and kills it before a call if told to.
    async fn attach(pid: Pid, strike: Option<usize>) -> Self {
        tokio::task::spawn_blocking(move || {
            let mut child = Command::new("/usr/bin/python3")
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/faults/system_calls.py"
                ))
                .arg(pid.as_raw_nonzero().to_string())
                .args(strike.map(|strike| strike.to_string()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
            let ready = said.next().expect("the process cannot be traced").unwrap();
            assert_eq!(ready, "ready");
            Self { child, said }
        })
        .await
        .unwrap()
    }

    /// The name of the call it struck at, or how many there were.
    async fn ended(mut self) -> Result<String, usize> {
        tokio::task::spawn_blocking(move || {
            // One that has struck is no more.
            let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let last = self.said.next().unwrap().unwrap();
            match last.split_once(' ') {
                Some(("killed", name)) => Ok(name.to_owned()),
                Some(("counted", count)) => Err(count.parse().unwrap()),
                _ => panic!("{last}"),
            }
        })
        .await
        .unwrap()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A vend that needs a rotation, watched; it is killed before the call of this number, if there are as many. Whether it was
/// served, and how the watch ended.
async fn rotation(server: &Server, strike: Option<usize>) -> (bool, Result<String, usize>) {
    server.expire().await;
    let tracer = Tracer::attach(server.pid(), strike).await;
    let answer = server.read().await;
    let ended = tracer.ended().await;
    let was_served = matches!(answer, Some((200, _)));
    match answer {
        // Struck or not: a process may be killed once it has answered.
        Some((200, _)) => {}
        // Each step of a watched process takes long, and PostgreSQL ends a transaction of which it hears nothing for 800 ms.
        Some((503, answer)) if database::is_postgres() => {
            println!("watched, and told {answer}; it said: {}", server.said());
            if ended.is_err() {
                let (status, answer) = settled(server, "watched, not struck").await;
                assert_eq!(status, 200, "{answer}, and it said: {}", server.said());
            }
        }
        Some((_, answer)) => panic!("{answer}, and it said: {}", server.said()),
        None => assert!(ended.is_ok(), "no answer, and nothing was killed: {ended:?}"),
    }
    (was_served, ended)
}

/// What a kill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    /// It works again.
    Works,
    /// The rotation is lost, and it is said that it is.
    SaidLost,
}

/// Kills at this call or, as no two rotations make as many, at one before the last of one that makes fewer.
async fn killed(server: &mut Server, kind: Rotation, strike: usize) -> Struck {
    let mut at = strike;
    for _ in 0..TRIES {
        match struck(server, kind, at).await {
            Ok(struck) => return struck,
            Err(calls) => {
                println!("{kind:?}: {calls} calls, none of number {at}");
                // Still near the end, which is what was to be struck.
                at = (calls - calls / 10).max(1);
            }
        }
    }
    panic!("{kind:?}: nothing was killed at call {strike} or soon before it, in {TRIES} rotations");
}

/// Strikes, starts again, and looks from outside at what is left; how many calls there were, if they were too few.
async fn struck(server: &mut Server, kind: Rotation, strike: usize) -> Result<Struck, usize> {
    let before = server.refreshes().await;
    let (was_served, call) = rotation(server, Some(strike)).await;
    let call = call?;
    let place = format!("{kind:?}, killed before call {strike}, {call}");
    server.until_dead().await;
    let asked = server.refreshes().await > before;
    server.start_again().await;
    let (status, answer) = settled(server, &place).await;
    if status == 200 {
        goes_on(server, &place).await;
        return Ok(Struck::Works);
    }
    assert_eq!(kind, Rotation::Strict, "{place}: lost with a grace: {answer}");
    assert!(!was_served, "{place}: served, and lost: {answer}");
    assert!(asked, "{place}: lost though the provider was not asked: {answer}");
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("reconnect_required")),
        "{place}: {answer}"
    );
    let reasons = said(server).await;
    let newest = reasons.iter().find(|reason| {
        let reason = reason.as_str().unwrap_or_default();
        reason == "rotation_lost" || reason == "refresh_token_dead"
    });
    assert_eq!(newest, Some(&json!("rotation_lost")), "{place}: {reasons:?}");
    server.connect().await;
    goes_on(server, &place).await;
    Ok(Struck::SaidLost)
}

/// Takes a server through some places.
async fn share(kind: Rotation, places: Vec<usize>) -> Vec<Struck> {
    let mut server = Server::connected(kind).await;
    let (mut all, mut lost) = (Vec::new(), 0);
    for place in places {
        if lost == LINKS {
            server = Server::connected(kind).await;
            lost = 0;
        }
        let came_to = killed(&mut server, kind, place).await;
        lost += usize::from(came_to == Struck::SaidLost);
        all.push(came_to);
    }
    all
}

async fn sweep(kind: Rotation) {
    let server = Server::connected(kind).await;
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(rotation(&server, None).await.1.unwrap_err());
    }
    drop(server);
    counts.sort_unstable();
    assert!(counts[0] > 40, "{counts:?} calls make no rotation");
    let is_long = std::env::var_os("POSTERN_LONG").is_some();
    let (points, at_once) = match (database::is_postgres(), is_long) {
        (false, _) => (OVER_SQLITE, 2),
        // They wait for the leases of dead processes, most of the time.
        (true, false) => (OVER_POSTGRES, 8),
        (true, true) => (OVER_POSTGRES, 24),
    };
    let places: Vec<usize> = if is_long {
        (1..=counts[2]).collect()
    } else {
        // Workers make a few calls as well, not the same each time.
        drawn(points, counts[1])
    };
    println!("{kind:?}: {counts:?} system calls, killed before each of {places:?}");
    let mut shares = JoinSet::new();
    for first in 0..at_once {
        // Every n-th place, so that no share has the long waits alone.
        let mine = places.iter().copied().skip(first).step_by(at_once).collect();
        shares.spawn(share(kind, mine));
    }
    let all = shares.join_all().await.concat();
    let lost = all.iter().filter(|struck| **struck == Struck::SaidLost).count();
    println!(
        "{kind:?}: killed {} times, of that {lost} rotations were said to be lost",
        all.len()
    );
}

/// One place in each of as many equal parts.
fn drawn(count: usize, calls: usize) -> Vec<usize> {
    let seed = match std::env::var("POSTERN_TEST_SEED") {
        Ok(seed) => seed.parse().expect("POSTERN_TEST_SEED is a number"),
        Err(_) => SystemClock.now().unix_micros().unsigned_abs(),
    };
    println!("POSTERN_TEST_SEED={seed}");
    let mut state = seed;
    (0..count)
        .map(|part| {
            let (from, to) = (part * calls / count, (part + 1) * calls / count);
            // SplitMix64's step and half of its mixing: even enough for places.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
            from + 1 + usize::try_from(mixed).unwrap() % (to - from).max(1)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_system_call_of_a_rotation_with_a_grace_loses_nothing() {
    sweep(Rotation::Grace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_system_call_of_a_rotation_without_a_grace_loses_nothing_silently() {
    sweep(Rotation::Strict).await;
}

/// How many kills a run that is not long makes of each kind of rotation, over each database.
const OVER_SQLITE: usize = 34;
const OVER_POSTGRES: usize = 16;
/// `scripts/test` runs both kinds over both: a hundred kills.
const _: () = assert!(2 * (OVER_SQLITE + OVER_POSTGRES) == 100);
/// How often a strike is made that comes too late. Each is a tenth before the end of the rotation before.
const TRIES: usize = 6;
/// An agent gets ten links to connect again in ten minutes, one for each loss; a server that needs more is left for a new
/// one.
const LINKS: usize = 10;
