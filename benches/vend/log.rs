//! How long an entry waits for its place in the log, and with it for the checkpoint over it, while there is load.

use std::time::{Duration, Instant};

use postern::{app::clock::SystemClock, domain::Clock as _, store::Location};

use crate::{
    Figures, load,
    measure::{Done, Machine, Spread, failed, short},
    seed::Rows,
    served::Served,
};

/// A checkpoint follows growth within this time.
const SOON_MS: f64 = 1_000.0;
/// In the quick run it does within this: a second and a half of load on a machine that others use as well.
const LATER_MS: f64 = 3_000.0;
/// How often is looked.
const EVERY: Duration = Duration::from_millis(50);

/// Under the load of all orgs, and of two.
pub(crate) fn measure(
    figures: &mut Figures,
    machine: &mut Machine,
    served: &Served,
    runtime: &tokio::runtime::Runtime,
) -> Done<()> {
    let time = Duration::from_millis(if short() { 1_500 } else { 15_000 });
    let two: load::Requests = served
        .tenants
        .iter()
        .take(2)
        .map(|one| served.request("/v1/vend", one))
        .collect();
    for (who, requests) in [("all orgs", served.requests("/v1/vend")), ("two orgs", two)] {
        machine.look(served.world.dir.path())?;
        let watching = runtime.spawn(watch(served.world.location.clone(), time));
        load::run(&served.address, requests, 64, time)?;
        let mut waited = runtime.block_on(watching)?.map_err(failed)?;
        waited.sort_by(f64::total_cmp);
        let tail = waited.get(waited.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        figures.show(
            format!("{who} at 64: the oldest entry without a place, ms"),
            Spread::of(waited),
        );
        figures.show(
            format!("{who} at 64: the oldest entry without a place, p99, ms"),
            Spread::of(vec![tail]),
        );
        if short() {
            figures.ask(
                tail <= LATER_MS,
                "a checkpoint is to follow growth within three seconds under full load",
            );
        } else {
            figures.ask(
                tail <= SOON_MS,
                "a checkpoint is to follow growth within a second under full load",
            );
        }
    }
    Ok(())
}

/// How old the oldest entry without a place was at each look; nothing waiting is no age.
async fn watch(location: Location, time: Duration) -> Result<Vec<f64>, String> {
    let text = |error: Box<dyn std::error::Error>| error.to_string();
    let mut rows = Rows::open(&location).await.map_err(text)?;
    let begun = Instant::now();
    let mut ages = Vec::new();
    while begun.elapsed() < time {
        tokio::time::sleep(EVERY).await;
        let oldest = rows.oldest_without_a_place().await.map_err(text)?;
        let now = SystemClock.now().unix_micros();
        #[expect(clippy::cast_precision_loss, reason = "some seconds of microseconds")]
        ages.push(oldest.map_or(0.0, |oldest| (now - oldest) as f64 / 1e3));
    }
    Ok(ages)
}
