//! What the machine was doing meanwhile, as Linux tells it.

use std::{fs, time::Duration};

/// Processor time a process has used.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .map(|field: usize| fields[field].parse::<u64>().unwrap())
        .iter()
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The most memory this process has held.
pub(crate) fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The load average of the last minute and its neighbours.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// How much of the processors somebody else uses, for two seconds.
pub(crate) async fn busy() -> f64 {
    let before = times();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = times();
    let (all, idle) = (after.0 - before.0, after.1 - before.1);
    (all - idle) as f64 / all as f64
}

/// All time of all processors, and the idle part of it.
fn times() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let first: Vec<u64> = stat
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|time| time.parse().unwrap())
        .collect();
    // Time waited for a disk is idle time.
    (first.iter().take(8).sum(), first[3] + first[4])
}
