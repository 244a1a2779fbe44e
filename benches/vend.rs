//! What a vend costs beside a route that does nothing and beside itself without the commit, over HTTP in one process;
//! whether it notices how many grants there are; and what happens when more is asked than can be done.
//!
//! `cargo bench --bench vend --features bench -- pairs stages` measures only these; there are also `size`, `overload`
//! and `log`, and, only if asked for, `profile`: vends alone, for a profiler and for two programs in turn.

#[path = "vend/bytes.rs"]
mod bytes;
#[path = "vend/in_use.rs"]
mod in_use;
#[path = "vend/load.rs"]
mod load;
#[path = "vend/log.rs"]
mod log;
mod measure;
#[path = "vend/open.rs"]
mod open;
#[path = "vend/overload.rs"]
mod overload;
#[path = "vend/pairs.rs"]
mod pairs;
#[path = "vend/seed.rs"]
mod seed;
#[path = "vend/served.rs"]
mod served;
#[path = "vend/size.rs"]
mod size;
#[path = "vend/stages.rs"]
mod stages;
#[path = "world/mod.rs"]
mod world;

use std::{process::ExitCode, time::Duration};

use postern::{app, http::server};
use serde_json::{Map, Value, json};

use measure::{Done, Machine, Spread, line, short};
use served::Served;

/// Orgs that take turns.
const ORGS: usize = 100;

/// What was measured, printed as it comes, and which goals were missed.
#[derive(Default)]
struct Figures {
    shown: Map<String, Value>,
    missed: Vec<&'static str>,
}

impl Figures {
    fn show(&mut self, name: String, spread: Spread) {
        line(&name, spread);
        self.shown.insert(name, spread.json());
    }

    /// A goal; where one is missed the run fails.
    fn ask(&mut self, met: bool, goal: &'static str) {
        if !met {
            self.missed.push(goal);
        }
    }
}

fn main() -> Done<ExitCode> {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    // As in production; the load has a thread of its own.
    let runtime = server::runtime()?;
    if let [first, numbers @ ..] = asked.as_slice()
        && first == size::RESIDENT
    {
        let numbers: Result<Vec<usize>, _> = numbers.iter().map(|number| number.parse()).collect();
        size::resident(&runtime, &numbers?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut machine = Machine::new();
    let mut figures = Figures::default();
    let mut stages = Value::Null;

    let committing = runtime.block_on(Served::start(app::open, ORGS))?;
    line("database", committing.world.engine());
    memory(&mut figures, "resident at start, MiB".to_owned())?;
    committing.warm()?;
    if asked.iter().any(|one| one == "profile") {
        profile(&mut figures, &committing)?;
    }
    if wanted("pairs") {
        let long = Duration::from_millis(if short() { 500 } else { 10_000 });
        let warm = committing.load("/v1/vend", 64, long)?;
        memory(
            &mut figures,
            format!("resident after {:.0} vends at 64 connections, MiB", warm.count),
        )?;
        let without = runtime.block_on(Served::start(app::open_without_commit, ORGS))?;
        without.warm()?;
        pairs::measure(&mut figures, &mut machine, &committing, &without)?;
    }
    if wanted("stages") {
        let first = committing.tenants.first().ok_or("no org")?;
        stages = runtime.block_on(stages::measure(&committing.world, &first.key))?;
    }
    if wanted("overload") {
        overload::measure(&mut figures, &mut machine, &committing)?;
    }
    if wanted("log") {
        log::measure(&mut figures, &mut machine, &committing, &runtime)?;
    }
    if wanted("size") {
        size::measure(&mut figures, &mut machine, &runtime)?;
    }
    machine.look(committing.world.dir.path())?;
    let (seen, _) = machine.report()?;
    println!(
        "{}",
        json!({"bench": "vend", "short": short(), "machine": seen, "figures": figures.shown, "stages": stages})
    );
    for goal in &figures.missed {
        println!("FAILED: {goal}");
    }
    Ok(if figures.missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Vends alone.
fn profile(figures: &mut Figures, committing: &Served) -> Done<()> {
    let seconds = Duration::from_secs(if short() { 2 } else { 10 });
    let seen = committing.load("/v1/vend", 64, seconds)?;
    figures.show("vends/s at 64".to_owned(), Spread::of(vec![seen.per_second]));
    figures.show(
        "CPU per vend at 64, us".to_owned(),
        Spread::of(vec![seen.server_us]),
    );
    Ok(())
}

fn memory(figures: &mut Figures, name: String) -> Done<()> {
    figures.show(name, Spread::of(vec![size::resident_mib()?]));
    Ok(())
}
