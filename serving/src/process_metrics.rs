//! What the process costs: CPU, memory, files. Names as every Prometheus client writes them.
//!
//! Read from `/proc/self` when the page is asked for; where there is none (not Linux), nothing is written.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Keys of `/proc/self/auxv` (`linux/auxvec.h`).
const AT_NULL: usize = 0;
const AT_PAGESZ: usize = 6;
const AT_CLKTCK: usize = 17;

/// Adds `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and `process_start_time_seconds`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessCollector { units: Units::read() }));
}

#[derive(Debug)]
struct ProcessCollector {
    units: Option<Units>,
}

/// What the numbers of `/proc` are in.
#[derive(Clone, Copy, Debug)]
struct Units {
    ticks_per_second: f64,
    page_bytes: f64,
}

/// Of the process, at one moment.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
    start_seconds: f64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(usage) = self.units.and_then(usage) {
            let cpu = ConstCounter::new(usage.cpu_seconds);
            let help = "CPU time of the process, user and system";
            cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
            let resident = ConstGauge::new(usage.resident_bytes);
            let help = "Memory of the process that is in RAM";
            resident.encode(encoder.encode_descriptor(
                "process_resident_memory",
                help,
                Some(&Unit::Bytes),
                resident.metric_type(),
            )?)?;
            let start = ConstGauge::new(usage.start_seconds);
            let help = "When the process started, in seconds since the Unix epoch";
            start.encode(encoder.encode_descriptor("process_start_time", help, Some(&Unit::Seconds), start.metric_type())?)?;
        }
        if let Some(count) = open_files() {
            let files = ConstGauge::new(count);
            files.encode(encoder.encode_descriptor("process_open_fds", "Open file descriptors", None, files.metric_type())?)?;
        }
        Ok(())
    }
}

impl Units {
    /// As the kernel told the process at its start: there is no other way without a call into the C library.
    fn read() -> Option<Self> {
        let vector = fs::read("/proc/self/auxv").ok()?;
        let words: Vec<usize> = vector.as_chunks().0.iter().map(|word| usize::from_ne_bytes(*word)).collect();
        let pairs = words.as_chunks::<2>().0;
        let value =
            |wanted| pairs.iter().take_while(|[key, _]| *key != AT_NULL).find(|[key, _]| *key == wanted).map(|[_, value]| *value);
        let ticks_per_second = value(AT_CLKTCK).filter(|ticks| *ticks > 0)? as f64;
        Some(Self { ticks_per_second, page_bytes: value(AT_PAGESZ)? as f64 })
    }
}

fn usage(units: Units) -> Option<Usage> {
    usage_of(&fs::read_to_string("/proc/self/stat").ok()?, &fs::read_to_string("/proc/stat").ok()?, units)
}

/// Source: `proc_pid_stat(5)`, `proc_stat(5)`.
fn usage_of(own: &str, system: &str, units: Units) -> Option<Usage> {
    // The name of the program stands in parentheses and may hold anything: what follows the last one is field 3 onwards.
    let fields: Vec<&str> = own.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / units.ticks_per_second,
        resident_bytes: field(24)? * units.page_bytes,
        start_seconds: boot + field(22)? / units.ticks_per_second,
    })
}

fn open_files() -> Option<u64> {
    // The folder is itself open while it is counted.
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn fields_are_counted_after_a_name_that_may_hold_anything() {
        let own = "7 (a) b ( c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 4 0 1000 5000000 300 18446744073709551615 1 1";
        let system = "cpu 1 2 3\nbtime 1700000000\nprocesses 9\n";
        let units = Units { ticks_per_second: 100.0, page_bytes: 4096.0 };
        let expected = Usage { cpu_seconds: 2.0, resident_bytes: 300.0 * 4096.0, start_seconds: 1_700_000_010.0 };
        assert_eq!(usage_of(own, system, units), Some(expected));
        assert_eq!(usage_of("7 (a", system, units), None);
        assert_eq!(usage_of("7 (a) S 1", system, units), None);
        assert_eq!(usage_of(own, "cpu 1\n", units), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_page_shows_this_process() {
        let mut registry = Registry::default();
        register(&mut registry);
        let page = || {
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            page
        };
        let value = |page: &str, name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
        };
        let before = page();
        // At least a page in RAM, and this test's own memory.
        let ballast = vec![1_u8; 32 << 20];
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let mut after = page();
        // CPU time is counted in ticks: work until one has passed.
        while value(&after, "process_cpu_seconds_total") <= value(&before, "process_cpu_seconds_total") {
            after = page();
        }
        let grown = |name: &str| value(&after, name) - value(&before, name);
        assert!(grown("process_resident_memory_bytes") >= (16 << 20) as f64, "{before}\n{after}");
        assert!(grown("process_open_fds") >= 15.0, "{before}\n{after}");
        assert_eq!(grown("process_start_time_seconds"), 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value(&after, "process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
        drop((ballast, files));
    }
}
