//! How everything here is measured: A and B in turn, ratios of neighbours, medians with their range; and what the
//! machine was like meanwhile.

use std::{
    error::Error,
    fmt::Debug,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    time::Instant,
};

use serde_json::{Value, json};

pub(crate) type Done<T> = Result<T, Box<dyn Error>>;

/// Anything that went wrong, in words.
pub(crate) fn failed(cause: impl Debug) -> Box<dyn Error> {
    format!("{cause:?}").into()
}

/// Whether this is the quick run for CI.
pub(crate) fn short() -> bool {
    std::env::var("POSTERN_BENCH_SHORT").is_ok_and(|value| value == "1")
}

/// Pairs per figure.
pub(crate) const PAIRS: usize = 5;

/// Median and range of some rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    /// The ratios of neighbours: never of medians of different moments.
    pub(crate) fn ratio(above: &[f64], below: &[f64]) -> Self {
        Self::of(
            above
                .iter()
                .zip(below)
                .map(|(above, below)| above / below)
                .collect(),
        )
    }

    pub(crate) fn json(self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({"median": round(self.median), "min": round(self.min), "max": round(self.max)})
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median < 100.0 { 2 } else { 0 };
        write!(
            f,
            "{:.digits$} ({:.digits$}..{:.digits$})",
            self.median, self.min, self.max
        )
    }
}

/// One line of a table.
pub(crate) fn line(name: &str, value: impl std::fmt::Display) {
    println!("{name:<66} {value}");
}

/// The machine while it was measured.
pub(crate) struct Machine {
    syncs: Vec<f64>,
    loads: Vec<String>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            syncs: Vec::new(),
            loads: Vec::new(),
        }
    }

    /// Looks at load and disk once; call it between rounds. Appends 4 KiB and syncs, in the directory measured; returns
    /// the median of these, in microseconds.
    pub(crate) fn look(&mut self, dir: &Path) -> Done<f64> {
        self.loads.push(load()?);
        let path = dir.join("fdatasync");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)?;
        let block = [7_u8; 4096];
        let mut these = Vec::new();
        for index in 0..60_u64 {
            let begun = Instant::now();
            file.write_all_at(&block, index * 4096)?;
            file.sync_data()?;
            these.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        fs::remove_file(path)?;
        self.syncs.extend(&these);
        Ok(Spread::of(these).median)
    }

    /// Prints and returns what was seen; whether the disk was steady enough for figures with a commit in them.
    pub(crate) fn report(&mut self) -> Done<(Value, bool)> {
        let processor = fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned());
        let cores = std::thread::available_parallelism()?;
        self.syncs.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let index = (self.syncs.len() * share / 100).min(self.syncs.len().saturating_sub(1));
            self.syncs.get(index).copied().unwrap_or(f64::NAN)
        };
        let (half, tail) = (at(50), at(99));
        let steady = tail <= 10.0 * half;
        let loads = (self.loads.first().cloned(), self.loads.last().cloned());
        line("processor", format!("{processor}, {cores} threads"));
        line(
            "load average, first and last",
            format!(
                "{} | {}",
                loads.0.as_deref().unwrap_or("?"),
                loads.1.as_deref().unwrap_or("?")
            ),
        );
        line(
            "4 KiB append + fdatasync, p50 / p99",
            format!("{half:.0} / {tail:.0} us"),
        );
        if !steady {
            println!(
                "note: fdatasync p99 is above 10 x p50; figures with a commit in them are not to be quoted"
            );
        }
        Ok((
            json!({
                "processor": processor, "threads": cores.get(), "load": [loads.0, loads.1],
                "fdatasync_us": {"p50": half.round(), "p99": tail.round()}, "steady_disk": steady,
            }),
            steady,
        ))
    }
}

fn load() -> Done<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
