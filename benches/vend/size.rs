//! Whether a vend notices how many grants there are: 1,000 beside 1,000,000, in the same orgs; of a hundred hot grants in
//! turn, and of grants that nobody asked for before. What a process holds that has vended very many of them, and what a row
//! takes up. The long form fails where a goal is missed.

use std::{
    env, fs,
    process::{Command, Stdio},
    time::Duration,
};

use postern::app;

use crate::{
    Figures, ORGS, bytes, in_use,
    measure::{Done, Machine, PAIRS, Spread, short},
    seed::{self, Copied},
    served::Served,
};

/// How many grants there are, how many of them are in use, and how many are vended in a round.
struct Sizes {
    many: usize,
    used: usize,
    lot: usize,
}

impl Sizes {
    fn of_this_run() -> Self {
        if short() {
            Self {
                many: 20_000,
                used: 4_000,
                lot: 500,
            }
        } else {
            Self {
                many: 1_000_000,
                used: 100_000,
                lot: 1_000,
            }
        }
    }
}

pub(crate) fn measure(
    figures: &mut Figures,
    machine: &mut Machine,
    runtime: &tokio::runtime::Runtime,
) -> Done<()> {
    let sizes = Sizes::of_this_run();
    times(figures, machine, runtime, &sizes)?;
    memory(figures, &sizes)
}

/// How long a vend takes beside few grants and beside many, and what their rows take up.
fn times(
    figures: &mut Figures,
    machine: &mut Machine,
    runtime: &tokio::runtime::Runtime,
    sizes: &Sizes,
) -> Done<()> {
    let many = sizes.many;
    let time = Duration::from_millis(if short() { 250 } else { 2_000 });
    let (few, few_copies) = runtime.block_on(grown(FEW, FEW))?;
    let (lots, lots_copies) = runtime.block_on(grown(many, sizes.used))?;
    // Tokens end: they are made when all rows are there.
    for served in [&few, &lots] {
        served.warm()?;
        served.load("/v1/vend", 64, time)?;
    }
    let few_used = runtime.block_on(in_use::ready(&few, &few_copies))?;
    let lots_used = runtime.block_on(in_use::ready(&lots, &lots_copies))?;
    let mut of_few = few_used.chunks(sizes.lot).cycle();
    let mut of_lots = lots_used.chunks(sizes.lot).cycle();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    let (mut small_first, mut large_first) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        machine.look(lots.world.dir.path())?;
        small.push(few.load("/v1/vend", 1, time)?.half_us);
        large.push(lots.load("/v1/vend", 1, time)?.half_us);
        // Of the many there are enough that none comes twice; the few come again as if for the first time.
        runtime.block_on(in_use::unused(&few))?;
        small_first.push(in_use::first(&few, of_few.next().unwrap_or_default(), 1)?.half_us);
        large_first.push(in_use::first(&lots, of_lots.next().unwrap_or_default(), 1)?.half_us);
    }
    let mut ratios = Vec::new();
    for (what, small, large) in [
        (format!("{ORGS} hot grants in turn"), small, large),
        ("each grant's first".to_owned(), small_first, large_first),
    ] {
        let ratio = Spread::ratio(&large, &small);
        figures.show(format!("vend, {FEW} grants, {what}: p50, us"), Spread::of(small));
        figures.show(format!("vend, {many} grants, {what}: p50, us"), Spread::of(large));
        figures.show(format!("vend, {many} / {FEW} grants, {what}: p50"), ratio);
        ratios.push(ratio.median);
    }
    // So that there are entries to weigh.
    lots.load("/v1/vend", 64, time * 5)?;
    runtime.block_on(bytes::measure(figures, &lots))?;
    // Twenty thousand grants and a quarter of a second say nothing of a million.
    if !short() {
        figures.ask(
            ratios.iter().all(|ratio| *ratio <= MOST_TIME),
            "a vend beside a million grants is to take at most 1.2 of what it takes beside a thousand (p50), of hot \
             grants and of each grant's first",
        );
    }
    Ok(())
}

/// What a process holds with few grants and with many, a hundred of them hot, and then with very many in use.
fn memory(figures: &mut Figures, sizes: &Sizes) -> Done<()> {
    let (many, used) = (sizes.many, sizes.used);
    let (before, after) = (resident_with(FEW, FEW)?, resident_with(many, used)?);
    let (hot, in_use) = (after.hot - before.hot, after.in_use - before.in_use);
    let more = f64::from(u32::try_from(used.saturating_sub(FEW))?);
    for (name, value) in [
        (
            format!("resident with {FEW} grants, {ORGS} hot grants vended, MiB"),
            before.hot,
        ),
        (
            format!("resident with {many} grants, {ORGS} hot grants vended, MiB"),
            after.hot,
        ),
        (format!("grown between them, {ORGS} hot grants, MiB"), hot),
        (
            format!("resident with {FEW} grants, all vended, at most, MiB"),
            before.in_use,
        ),
        (
            format!("resident with {many} grants, {used} vended, at most, MiB"),
            after.in_use,
        ),
        (format!("grown between them, {used} grants in use, MiB"), in_use),
        (
            "of that for each grant more in use, KiB".to_owned(),
            in_use * 1024.0 / more,
        ),
    ] {
        figures.show(name, Spread::of(vec![value]));
    }
    if !short() {
        figures.ask(
            hot < MOST_MIB,
            "a million grants, a hundred of them hot, are to take less than 64 MiB of memory more than a thousand",
        );
        figures.ask(
            in_use < MOST_MIB,
            "a million grants, 100,000 of them in use, are to take less than 64 MiB of memory more than a thousand",
        );
    }
    Ok(())
}

/// What a process held in memory, in MiB.
struct Resident {
    /// After a hundred hot grants were vended for a while.
    hot: f64,
    /// At most, while very many were vended, each once.
    in_use: f64,
}

/// What a process of its own holds that serves so many grants, of which so many are vended.
fn resident_with(grants: usize, used: usize) -> Done<Resident> {
    let child = Command::new(env::current_exe()?)
        .args([RESIDENT, &grants.to_string(), &used.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8(child.stdout)?;
    let mib = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    match (child.status.success(), mib(HOT), mib(IN_USE)) {
        (true, Some(hot), Some(in_use)) => Ok(Resident {
            hot: hot.parse()?,
            in_use: in_use.parse()?,
        }),
        _ => Err(format!("{RESIDENT} {grants} {used} ended with {}: {said}", child.status).into()),
    }
}

/// The child's part: seeds, serves, and says what it holds. `numbers`: how many grants there are, and how many of them are
/// in use, if more than one of each org.
pub(crate) fn resident(runtime: &tokio::runtime::Runtime, numbers: &[usize]) -> Done<()> {
    let [grants, used @ ..] = numbers else {
        return Err(format!("{RESIDENT}: how many grants?").into());
    };
    let used = used.first().copied().unwrap_or(ORGS);
    let (served, copies) = runtime.block_on(grown(*grants, used))?;
    served.warm()?;
    let time = Duration::from_millis(if short() { 250 } else { 5_000 });
    served.load("/v1/vend", 64, time)?;
    println!("{HOT}{}", resident_mib()?);
    let used = runtime.block_on(in_use::ready(&served, &copies))?;
    drop(copies);
    // Lot by lot: the load's own requests take up no more than a lot's. What is left of the bench's is a list of ids, of
    // which 100,000 take 2 MiB. The most counts: the cache of facts forgets everything when it is full.
    let mut most = resident_mib()?;
    for lot in used.chunks(Sizes::of_this_run().lot) {
        in_use::each(&served, lot, 64)?;
        most = most.max(resident_mib()?);
    }
    println!("{IN_USE}{most}");
    Ok(())
}

/// The argument that makes a process the child.
pub(crate) const RESIDENT: &str = "resident";
const HOT: &str = "resident MiB, hot: ";
const IN_USE: &str = "resident MiB, in use: ";
/// So many grants are few.
const FEW: usize = 1_000;
/// A vend's p50 beside a million grants, in p50s beside [`FEW`].
const MOST_TIME: f64 = 1.2;
/// What a process may hold in memory for a million grants, beyond what it holds for [`FEW`].
const MOST_MIB: f64 = 64.0;

/// A deployment with so many grants, and those copies of which so many grants in use are made.
async fn grown(grants: usize, used: usize) -> Done<(Served, Vec<Vec<Copied>>)> {
    let served = Served::start(app::open, ORGS).await?;
    let copies = seed::grants(&served, grants, used).await?;
    Ok((served, copies))
}

/// What the process holds in memory.
pub(crate) fn resident_mib() -> Done<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS")?
        .parse::<f64>()?;
    Ok(kib / 1024.0)
}
