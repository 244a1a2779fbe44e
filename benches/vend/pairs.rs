//! A vend beside routes that do nothing, and beside itself without its commit.

use std::time::Duration;

use crate::{
    Figures,
    load::Seen,
    measure::{Done, Machine, PAIRS, Spread, short},
    served::Served,
};

/// The least a vend may reach of the plain no-op's requests a second in the quick run.
const LEAST: f64 = 1.0 / 24.0;
/// The same when there is time to measure.
const GOAL: f64 = 1.0 / 16.0;
/// The least that is left of a vend's requests a second when its commit is not left out.
const DURABLE: f64 = 0.70;
/// What a vend may take at most of what it would take without its commit and an `fdatasync` together.
const TWICE: f64 = 2.0;

/// The medians that have a goal.
struct Reached {
    of_noop: f64,
    of_uncommitted: f64,
    over_least: f64,
}

/// Measures all four in turn.
pub(crate) fn measure(
    figures: &mut Figures,
    machine: &mut Machine,
    committing: &Served,
    without: &Served,
) -> Done<()> {
    let time = Duration::from_millis(if short() { 500 } else { 1_500 });
    let dir = committing.world.dir.path();
    for connections in [1_usize, 64] {
        let mut rounds: [Vec<Seen>; 4] = Default::default();
        let mut syncs = Vec::new();
        for _ in 0..PAIRS {
            syncs.push(machine.look(dir)?);
            let [bare, noop, vend, rest] = &mut rounds;
            bare.push(committing.load("/bench/bare", connections, time)?);
            noop.push(committing.load("/bench/noop", connections, time)?);
            vend.push(committing.load("/v1/vend", connections, time)?);
            rest.push(without.load("/v1/vend", connections, time)?);
        }
        let reached = compare(figures, connections, &rounds, &syncs);
        ask(figures, connections, &reached);
    }
    Ok(())
}

/// Half a second says little of a goal: the quick run asks for less of the one that shows most.
fn ask(figures: &mut Figures, connections: usize, reached: &Reached) {
    match (connections, short()) {
        (1, true) => {}
        (1, false) => figures.ask(
            reached.over_least <= TWICE,
            "a vend at 1 connection is to take at most twice what it takes without its commit and an fdatasync (p50)",
        ),
        (_, true) => figures.ask(
            reached.of_noop >= LEAST,
            "a vend is to reach 1/24 of the no-op's requests a second",
        ),
        (_, false) => {
            figures.ask(
                reached.of_noop >= GOAL,
                "a vend is to reach 1/16 of the no-op's requests a second",
            );
            figures.ask(
                reached.of_uncommitted >= DURABLE,
                "a vend is to reach 0.70 of its requests a second without its commit",
            );
        }
    }
}

/// Shows everything; returns what has a goal.
fn compare(figures: &mut Figures, connections: usize, rounds: &[Vec<Seen>; 4], syncs: &[f64]) -> Reached {
    let [bare, noop, vend, rest] = rounds;
    let pick = |rounds: &[Seen], of: fn(&Seen) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let at = format!("at {connections}");
    for (name, rounds) in [
        ("no-op", bare),
        ("authenticated no-op", noop),
        ("vend", vend),
        ("vend without commit", rest),
    ] {
        for (what, of) in [
            ("requests/s", (|seen| seen.per_second) as fn(&Seen) -> f64),
            ("p50, us", |seen| seen.half_us),
            ("p99, us", |seen| seen.tail_us),
            ("CPU, us/request", |seen| seen.server_us),
        ] {
            figures.show(format!("{name} {at}: {what}"), Spread::of(pick(rounds, of)));
        }
    }
    // What is never measured is never reached.
    let mut reached = Reached {
        of_noop: f64::NAN,
        of_uncommitted: f64::NAN,
        over_least: f64::NAN,
    };
    for (name, above, below) in [
        ("authenticated no-op / no-op", noop, bare),
        ("vend / authenticated no-op", vend, noop),
        ("vend / no-op", vend, bare),
        ("vend / vend without commit", vend, rest),
    ] {
        let ratio = |of: fn(&Seen) -> f64| Spread::ratio(&pick(above, of), &pick(below, of));
        let rate = ratio(|seen| seen.per_second);
        figures.show(format!("{name} {at}: requests/s"), rate);
        figures.show(format!("{name} {at}: p50"), ratio(|seen| seen.half_us));
        figures.show(
            format!("{name} {at}: CPU per request"),
            ratio(|seen| seen.server_us),
        );
        if name == "vend / no-op" {
            figures.show(
                format!("no-op / vend {at}: one vend in so many no-ops"),
                Spread::ratio(
                    &pick(bare, |seen| seen.per_second),
                    &pick(vend, |seen| seen.per_second),
                ),
            );
            reached.of_noop = rate.median;
        } else if name == "vend / vend without commit" {
            reached.of_uncommitted = rate.median;
        }
    }
    let least: Vec<f64> = rest
        .iter()
        .zip(syncs)
        .map(|(rest, sync)| rest.half_us + sync)
        .collect();
    let over_least = Spread::ratio(&pick(vend, |seen| seen.half_us), &least);
    figures.show(
        format!("vend / (vend without commit + fdatasync) {at}: p50"),
        over_least,
    );
    reached.over_least = over_least.median;
    reached
}
