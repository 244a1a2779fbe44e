//! Whether a vend notices how many grants there are: 1,000 beside 1,000,000, in the same orgs. The long form fails where it
//! does.

use std::{
    env, fs,
    process::{Command, Stdio},
    time::Duration,
};

use postern::app;

use crate::{
    Figures, ORGS,
    measure::{Done, Machine, PAIRS, Spread, short},
    seed,
    served::Served,
};

pub(crate) fn measure(
    figures: &mut Figures,
    machine: &mut Machine,
    runtime: &tokio::runtime::Runtime,
) -> Done<()> {
    let many = if short() { 20_000 } else { 1_000_000 };
    let time = Duration::from_millis(if short() { 250 } else { 2_000 });
    let few = runtime.block_on(grown(FEW))?;
    few.warm()?;
    few.load("/v1/vend", 64, time)?;
    let lots = runtime.block_on(grown(many))?;
    lots.warm()?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        machine.look(lots.world.dir.path())?;
        small.push(few.load("/v1/vend", 1, time)?.half_us);
        large.push(lots.load("/v1/vend", 1, time)?.half_us);
    }
    drop((few, lots));
    figures.show(format!("vend, {FEW} grants: p50, us"), Spread::of(small.clone()));
    figures.show(format!("vend, {many} grants: p50, us"), Spread::of(large.clone()));
    let ratio = Spread::ratio(&large, &small);
    figures.show(format!("vend, {many} / {FEW} grants: p50"), ratio);
    let (before, after) = (resident_with(FEW)?, resident_with(many)?);
    for (name, mib) in [
        (format!("resident with {FEW} grants, MiB"), before),
        (format!("resident with {many} grants, MiB"), after),
        ("grown between them, MiB".to_owned(), after - before),
    ] {
        figures.show(name, Spread::of(vec![mib]));
    }
    // Twenty thousand grants and a quarter of a second say nothing of a million.
    if !short() {
        figures.ask(
            ratio.median <= MOST_TIME,
            "a vend beside a million grants is to take at most 1.2 of what it takes beside a thousand (p50)",
        );
        figures.ask(
            after - before < MOST_MIB,
            "a million grants are to take less than 64 MiB of memory more than a thousand",
        );
    }
    Ok(())
}

/// What a process of its own holds in memory that serves so many grants. A hundred of them
/// are vended, in turn.
fn resident_with(grants: usize) -> Done<f64> {
    let child = Command::new(env::current_exe()?)
        .args([RESIDENT, &grants.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8(child.stdout)?;
    let mib = said.lines().find_map(|line| line.strip_prefix(SAID));
    match (child.status.success(), mib) {
        (true, Some(mib)) => Ok(mib.parse()?),
        _ => Err(format!("{RESIDENT} {grants} ended with {}: {said}", child.status).into()),
    }
}

/// The child's part: seeds, serves, and says what it holds.
pub(crate) fn resident(runtime: &tokio::runtime::Runtime, grants: usize) -> Done<()> {
    let served = runtime.block_on(grown(grants))?;
    served.warm()?;
    let time = Duration::from_millis(if short() { 250 } else { 5_000 });
    served.load("/v1/vend", 64, time)?;
    println!("{SAID}{}", resident_mib()?);
    Ok(())
}

/// The argument that makes a process the child.
pub(crate) const RESIDENT: &str = "resident";
const SAID: &str = "resident MiB: ";
/// So many grants are few.
const FEW: usize = 1_000;
/// A vend's p50 beside a million grants, in p50s beside [`FEW`].
const MOST_TIME: f64 = 1.2;
/// What a process may hold in memory for a million grants, beyond what it holds for [`FEW`].
const MOST_MIB: f64 = 64.0;

async fn grown(grants: usize) -> Done<Served> {
    let served = Served::start(app::open, ORGS).await?;
    seed::grants(&served, grants).await?;
    Ok(served)
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
