//! What a vend costs beside a route that does nothing and beside itself without the commit, over HTTP in one process.

#[path = "vend/load.rs"]
mod load;
mod measure;
#[path = "vend/stages.rs"]
mod stages;
#[path = "world/mod.rs"]
mod world;

use std::{fs, net::Ipv4Addr, sync::Arc, time::Duration};

use postern::{
    app::{self, AppError, Parts},
    flows::Deps,
    http::{guard::RequestIds, router, security::Site, server},
    workers::Workers,
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use measure::{Done, Machine, PAIRS, Spread, failed, line, short};
use world::World;

fn main() -> Done<()> {
    // As many threads as processors, as in production; the load has a thread of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut machine = Machine::new();
    let mut figures = Map::new();

    let committing = runtime.block_on(Served::start(app::open))?;
    memory(&mut figures, "memory at start (RSS, MB)")?;
    machine.look(committing.world.dir.path())?;
    // The first vend narrows the token at the provider; all later ones find it warm.
    committing.load("/v1/vend", 1, Duration::from_millis(300))?;
    let long = Duration::from_millis(if short() { 500 } else { 10_000 });
    let warm = committing.load("/v1/vend", 64, long)?;
    let name = format!(
        "memory after {:.0} vends at 64 connections (RSS, MB)",
        warm.requests
    );
    memory(&mut figures, &name)?;

    let without = runtime.block_on(Served::start(app::open_without_commit))?;
    without.load("/v1/vend", 1, Duration::from_millis(300))?;

    let time = Duration::from_millis(if short() { 250 } else { 1_500 });
    for connections in [1_usize, 64] {
        let mut rounds: [Vec<load::Seen>; 4] = Default::default();
        for _ in 0..PAIRS {
            machine.look(committing.world.dir.path())?;
            let [bare, noop, vend, rest] = &mut rounds;
            bare.push(committing.load("/bench/bare", connections, time)?);
            noop.push(committing.load("/bench/noop", connections, time)?);
            vend.push(committing.load("/v1/vend", connections, time)?);
            rest.push(without.load("/v1/vend", connections, time)?);
        }
        compare(&mut figures, connections, &rounds);
    }
    let stages = runtime.block_on(stages::measure(&committing.world, &committing.agent_key))?;
    machine.look(committing.world.dir.path())?;
    let (seen, _) = machine.report()?;
    println!(
        "{}",
        json!({"bench": "vend", "short": short(), "machine": seen, "figures": figures, "stages": stages})
    );
    Ok(())
}

/// A world that answers on loopback as `postern serve` does, workers included.
struct Served {
    world: World,
    address: String,
    agent_key: String,
}

impl Served {
    async fn start<F>(open: impl FnOnce(Parts) -> F) -> Done<Self>
    where
        F: Future<Output = Result<Arc<Deps>, AppError>>,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let url = format!("http://{address}");
        let (world, agent_key) = World::new(&url, open).await?;
        let site = Site::new(&url::Url::parse(&url)?).map_err(failed)?;
        let ids = RequestIds::new(&*world.deps.random).map_err(failed)?;
        let app = router::app(Arc::clone(&world.deps), site);
        let workers = Workers::start(&world.deps);
        tokio::spawn(async move {
            server::serve(
                listener,
                app,
                server::Limits::default(),
                ids,
                std::future::pending(),
            )
            .await;
            workers.stop().await;
        });
        Ok(Self {
            world,
            address,
            agent_key,
        })
    }

    /// The vend that is measured, as an agent sends it.
    fn body(&self) -> String {
        json!({
            "grant": self.world.grant.to_string(), "tool": "messages.list", "args": {"limit": 3}, "mode": "token",
        })
        .to_string()
    }

    fn load(&self, path: &str, connections: usize, time: Duration) -> Done<load::Seen> {
        load::run(
            &self.address,
            path,
            &self.agent_key,
            &self.body(),
            connections,
            time,
        )
    }
}

fn compare(figures: &mut Map<String, Value>, connections: usize, rounds: &[Vec<load::Seen>; 4]) {
    let [bare, noop, vend, rest] = rounds;
    let pick =
        |rounds: &[load::Seen], of: fn(&load::Seen) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let mut show = |name: String, spread: Spread| {
        line(&name, spread);
        figures.insert(name, spread.json());
    };
    let at = format!("at {connections}");
    for (name, rounds) in [
        ("unauthenticated no-op", bare),
        ("no-op", noop),
        ("vend", vend),
        ("vend without commit", rest),
    ] {
        show(
            format!("{name} {at}: requests/s"),
            Spread::of(pick(rounds, |seen| seen.per_second)),
        );
        show(
            format!("{name} {at}: p50, us"),
            Spread::of(pick(rounds, |seen| seen.half_us)),
        );
        show(
            format!("{name} {at}: p99, us"),
            Spread::of(pick(rounds, |seen| seen.tail_us)),
        );
        show(
            format!("{name} {at}: CPU, us/request"),
            Spread::of(pick(rounds, |seen| seen.server_us)),
        );
    }
    for (name, above, below) in [
        ("no-op / unauthenticated no-op", noop, bare),
        ("vend / no-op", vend, noop),
        ("vend / vend without commit", vend, rest),
    ] {
        let ratio = |of: fn(&load::Seen) -> f64| Spread::ratio(&pick(above, of), &pick(below, of));
        show(format!("{name} {at}: requests/s"), ratio(|seen| seen.per_second));
        show(format!("{name} {at}: p50"), ratio(|seen| seen.half_us));
        show(
            format!("{name} {at}: CPU per request"),
            ratio(|seen| seen.server_us),
        );
    }
}

fn memory(figures: &mut Map<String, Value>, name: &str) -> Done<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS")?
        .parse::<f64>()?;
    let spread = Spread::of(vec![kib / 1024.0]);
    line(name, format!("{:.1}", spread.median));
    figures.insert(name.to_owned(), spread.json());
    Ok(())
}
