//! What a process uses, by /proc.

use std::fs;
use std::time::Duration;

/// Processor time of all threads so far.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    // Nanoseconds; `stat` counts in hundredths of a second, too coarse where little is used.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let nanos: Option<u64> = tasks.flatten().map(of_task).sum();
    nanos.filter(|nanos| *nanos > 0).map(Duration::from_nanos).or_else(|| ticks(pid))
}

/// The same by `/proc/PID/stat`, in ticks of 10 ms.
fn ticks(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything but ends with the last parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
