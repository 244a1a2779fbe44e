//! More than can be served: what is still served, how fast the rest is refused, and what a neighbour notices.

use std::{thread, time::Duration};

use crate::{
    Figures, load,
    measure::{Done, Machine, PAIRS, Spread, failed, short},
    open,
    served::Served,
};

/// At twice the capacity.
pub(crate) fn measure(figures: &mut Figures, machine: &mut Machine, served: &Served) -> Done<()> {
    let time = Duration::from_millis(if short() { 500 } else { 3_000 });
    let (mut goodput, mut refused, mut share) = (Vec::new(), Vec::new(), Vec::new());
    let (mut served_tail, mut late, mut withheld) = (Vec::new(), Vec::new(), Vec::new());
    let mut two_busy = Vec::new();
    let (mut alone, mut beside, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        machine.look(served.world.dir.path())?;
        let peak = served.load("/v1/vend", 64, time)?.per_second;
        let seen = open::run(
            &served.address,
            served.requests("/v1/vend"),
            2.0 * peak,
            time,
            CROWD,
        )?;
        goodput.push(seen.served.per_second / peak);
        served_tail.push(seen.served.tail_us / 1e3);
        if seen.refused.count > 0.0 {
            refused.push(seen.refused.tail_us / 1e3);
        }
        share.push(seen.refused.count / (seen.refused.count + seen.served.count));
        late.push(seen.unsent);

        // Two orgs that both ask for all there is: neither has more than its share under way.
        let two: Vec<_> = served.tenants.iter().take(2).collect();
        let both: Vec<_> = two.iter().map(|one| served.request("/v1/vend", one)).collect();
        let both = load::run(&served.address, both.into(), 64, time)?.per_second;
        two_busy.push(both / peak);

        let mut near = beside_a_flood(served, peak, time)?;
        for _ in 0..AGAIN {
            if near.flood.refused.count > 0.0 {
                break;
            }
            // Twice of what was served in a moment in which the machine did something else is no more than there is.
            let peak = served.load("/v1/vend", 64, time)?.per_second;
            near = beside_a_flood(served, peak, time)?;
        }
        if near.flood.refused.count == 0.0 {
            return Err("a flood of which nothing is refused is none".into());
        }
        let most = [&seen, &near.alone, &near.beside, &near.flood].map(unsent);
        withheld.push(most.into_iter().fold(0.0, f64::max));
        let (own, theirs) = (near.alone.served.tail_us, near.beside.served.tail_us);
        alone.push(own / 1e3);
        beside.push(theirs / 1e3);
        ratio.push(theirs / own);
    }
    // A load that was not offered measures nothing, and what nobody sent was neither refused nor late.
    figures.ask(
        Spread::of(withheld.clone()).median <= UNSENT,
        "of no load more than a hundredth is to stay unsent",
    );
    let kept = Spread::of(goodput.clone()).median;
    let goals = [
        (
            kept >= GOODPUT,
            "at twice the capacity 0.75 of the peak are to be served",
        ),
        (
            refused.len() == PAIRS && Spread::of(refused.clone()).median <= REFUSED_MS,
            "at twice the capacity refusals are to take at most 20 ms (p99)",
        ),
        (
            Spread::of(ratio.clone()).median <= BESIDE,
            "another org is to take at most twice its own time beside a flood (p99)",
        ),
    ];
    for (name, values) in [
        ("at twice the capacity: goodput / peak", goodput),
        ("at twice the capacity: share refused", share),
        ("at twice the capacity: p99 of what was refused, ms", refused),
        ("at twice the capacity: p99 of what was served, ms", served_tail),
        ("at twice the capacity: requests that were never sent", late),
        ("of any load here: the greatest share never sent", withheld),
        ("two busy orgs: vends/s / those of a hundred", two_busy),
        ("another org alone: p99, ms", alone),
        ("another org beside one org's flood: p99, ms", beside),
        ("another org: p99 beside the flood / alone", ratio),
    ] {
        figures.show(name.to_owned(), Spread::of(values));
    }
    // Half a second says little of a goal, but a server that breaks down under load shows in it.
    if short() {
        figures.ask(
            kept >= HALF,
            "at twice the capacity half of the peak is to be served",
        );
    } else {
        for (reached, goal) in goals {
            figures.ask(reached, goal);
        }
    }
    Ok(())
}

/// An org that asks now and then, by itself and beside another one's flood; and that flood.
struct Near {
    alone: open::Outcome,
    beside: open::Outcome,
    flood: open::Outcome,
}

/// The last org asks now and then; the first asks for twice of what there is.
fn beside_a_flood(served: &Served, peak: f64, time: Duration) -> Done<Near> {
    let last = served.tenants.last().ok_or("no org")?;
    let quiet: load::Requests = vec![served.request("/v1/vend", last)].into();
    let first = served.tenants.first().ok_or("no org")?;
    let flood: load::Requests = vec![served.request("/v1/vend", first)].into();
    let alone = open::run(&served.address, quiet.clone(), QUIET, time, FEW)?;
    let address = served.address.clone();
    let flooding = thread::spawn(move || {
        open::run(
            &address,
            flood,
            2.0 * peak,
            time + Duration::from_millis(300),
            CROWD,
        )
        .map_err(|error| error.to_string())
    });
    thread::sleep(Duration::from_millis(200));
    let beside = open::run(&served.address, quiet, QUIET, time, FEW)?;
    let flood = flooding
        .join()
        .map_err(|_| "the flood panicked")?
        .map_err(failed)?;
    if beside.refused.count > 0.0 {
        return Err("one org's flood had another org refused".into());
    }
    Ok(Near { alone, beside, flood })
}

/// The share of a load that was never sent.
fn unsent(load: &open::Outcome) -> f64 {
    load.unsent / (load.unsent + load.served.count + load.refused.count)
}

/// How often a flood that was none is tried again.
const AGAIN: usize = 2;
/// The most of a load that may stay unsent.
const UNSENT: f64 = 0.01;
/// The least of the peak that is served at twice the capacity.
const GOODPUT: f64 = 0.75;
/// The same in the quick run.
const HALF: f64 = 0.5;
/// How long a refusal may take there, p99.
const REFUSED_MS: f64 = 20.0;
/// What another org's p99 may take beside a flood, of its own alone.
const BESIDE: f64 = 2.0;
/// Requests a second of the org that does not flood.
const QUIET: f64 = 100.0;
/// Connections of those who ask for more than there is; the server takes 1024.
const CROWD: usize = 768;
/// Connections of the org that does not flood.
const FEW: usize = 16;
