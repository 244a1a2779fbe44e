//! Whether a vend notices how many grants there are: 1,000 beside 1,000,000, in the same orgs.

use std::{fs, time::Duration};

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
    let few = runtime.block_on(grown(1_000))?;
    few.warm()?;
    few.load("/v1/vend", 64, time)?;
    let before = resident_mib()?;
    let lots = runtime.block_on(grown(many))?;
    lots.warm()?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        machine.look(lots.world.dir.path())?;
        small.push(few.load("/v1/vend", 1, time)?.half_us);
        large.push(lots.load("/v1/vend", 1, time)?.half_us);
    }
    lots.load("/v1/vend", 64, time)?;
    let after = resident_mib()?;
    figures.show(
        "vend, 1,000 grants: p50, us".to_owned(),
        Spread::of(small.clone()),
    );
    figures.show(format!("vend, {many} grants: p50, us"), Spread::of(large.clone()));
    figures.show(
        format!("vend, {many} / 1,000 grants: p50"),
        Spread::ratio(&large, &small),
    );
    figures.show(
        "resident with 1,000 grants, MiB".to_owned(),
        Spread::of(vec![before]),
    );
    // A second deployment in the same process is in this figure: the growth is less.
    figures.show(
        format!("resident with {many} more in a second deployment, MiB"),
        Spread::of(vec![after]),
    );
    Ok(())
}

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
