//! What the demo shows: a live table on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use weir_datastore::{LoadSignal, Measurement, PoolSnapshot, Saturation};

use super::autoscaler::{ApiClient, Turn};
use super::deployment::{Deployment, MODEL};
use super::load::Users;
use super::{NAMESPACE, POOL};
use crate::serve::RunningServers;

/// Points of a sparkline.
const SPARK_POINTS: usize = 60;

/// Decisions shown below the table.
const DECISIONS_SHOWN: usize = 8;

/// A plain line at least this often.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Bars of a sparkline, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The demo's output.
pub(crate) struct View {
    live: bool,
    description: String,
    drawn_lines: usize,
    last_plain: Option<Duration>,
    last_point: Option<Duration>,
    replicas: VecDeque<f64>,
    in_flight: VecDeque<f64>,
    decisions: VecDeque<String>,
    last_failure: Option<String>,
}

impl View {
    /// Live on a terminal unless `plain`.
    pub(crate) fn new(plain: bool, description: String) -> Self {
        Self {
            live: !plain && std::io::stdout().is_terminal(),
            description,
            drawn_lines: 0,
            last_plain: None,
            last_point: None,
            replicas: VecDeque::new(),
            in_flight: VecDeque::new(),
            decisions: VecDeque::new(),
            last_failure: None,
        }
    }

    /// Says what runs where, with lines to paste.
    pub(crate) fn introduce(&self, picker: SocketAddr, servers: &RunningServers, ca_file: &Path, pools_file: &Path) {
        let (exporter, adapter, ca) = (servers.exporter, servers.adapter, ca_file.display());
        let kv = "inference_pool_average_kv_cache_utilization";
        let own = ApiClient::path(kv, "name");
        let gke = ApiClient::path(&format!("prometheus.googleapis.com|{kv}|gauge"), "metric.labels.name");
        println!(
            "weir demo: simulated vLLM servers, users, picker, exporter, metrics API and an autoscaler, all on 127.0.0.1\n\n\
             {}\n\n\
             pools file   {}\n\
             picker       http://{picker}/v1/chat/completions\n\
             exporter     http://{exporter}/metrics   http://{exporter}/api/v1/pools\n\
             metrics API  https://{adapter}/apis/external.metrics.k8s.io/v1beta1\n\n\
             curl -s http://{picker}/v1/completions -H 'content-type: application/json' \
             -d '{{\"model\": \"{MODEL}\", \"prompt\": \"hi\", \"max_tokens\": 8}}'\n\
             curl -s http://{exporter}/metrics\n\
             curl -s --cacert {ca} 'https://{adapter}{own}'\n\
             kubectl --server https://{adapter} --certificate-authority {ca} --token none get --raw '{own}'\n\
             kubectl --server https://{adapter} --certificate-authority {ca} --token none get --raw '{gke}'\n",
            self.description,
            pools_file.display(),
        );
    }

    /// The autoscaler decided.
    pub(crate) fn decided(&mut self, elapsed: Duration, turn: &Turn) {
        let at = format!("{:>5.1}s", elapsed.as_secs_f64());
        let line = match (&turn.reading, turn.current == turn.desired) {
            (Err(error), _) if self.last_failure.as_ref() == Some(error) => return,
            (Err(error), _) => {
                self.last_failure = Some(error.clone());
                format!("{at}  holds {} servers: {error}", turn.current)
            }
            (Ok(_), true) => {
                self.last_failure = None;
                return;
            }
            (Ok(_), false) => {
                self.last_failure = None;
                let verb = match (turn.desired > turn.current, turn.current, turn.desired) {
                    (true, 0, _) => "wake",
                    (true, ..) => "up",
                    (false, ..) => "down",
                };
                format!("{at}  {verb} {} -> {}: {}", turn.current, turn.desired, turn.reason)
            }
        };
        if !self.live {
            println!("{line}");
        }
        self.decisions.push_back(line);
        if self.decisions.len() > DECISIONS_SHOWN {
            self.decisions.pop_front();
        }
    }

    /// The pool as it is.
    pub(crate) fn draw(&mut self, elapsed: Duration, pool: &PoolSnapshot, deployment: &Deployment, users: &Users) {
        self.remember(elapsed, pool, deployment);
        if self.live {
            self.draw_table(elapsed, pool, deployment, users);
        } else if self.last_plain.is_none_or(|last| elapsed >= last + PLAIN_EVERY) {
            self.last_plain = Some(elapsed);
            println!("{:>5.1}s  {}", elapsed.as_secs_f64(), one_line(elapsed, pool, deployment, users));
        }
    }

    /// Leaves the table as it is and goes on below it.
    pub(crate) fn finish(&mut self) {
        println!();
        self.drawn_lines = 0;
    }

    fn remember(&mut self, elapsed: Duration, pool: &PoolSnapshot, deployment: &Deployment) {
        let every = Duration::from_secs(1);
        if self.last_point.is_some_and(|last| elapsed < last + every) {
            return;
        }
        self.last_point = Some(elapsed);
        let in_flight = pool.total_inflight().map_or(0.0, |measured| measured.value);
        for (points, point) in [(&mut self.replicas, deployment.count() as f64), (&mut self.in_flight, in_flight)] {
            points.push_back(point);
            if points.len() > SPARK_POINTS {
                points.pop_front();
            }
        }
    }

    fn draw_table(&mut self, elapsed: Duration, pool: &PoolSnapshot, deployment: &Deployment, users: &Users) {
        let counts = users.counts();
        let mut lines = vec![
            format!("{NAMESPACE}/{POOL}   {:>5.1} s", elapsed.as_secs_f64()),
            format!(
                "  servers    {:>2} ready of {:<2}          {}",
                deployment.ready_count(),
                deployment.count(),
                sparkline(&self.replicas)
            ),
            format!("  in flight  {:>6}               {}", shown(&pool.total_inflight(), 0), sparkline(&self.in_flight)),
            format!("  KV cache   {:>6} mean {:>6} max", percent(pool, false), percent(pool, true)),
            format!("  queue      {:>6} total  {:>6} held", shown(&pool.total_queue_size(), 0), shown(&pool.held, 0)),
            format!("  saturation {:>6}", saturation(pool)),
            format!(
                "  users      {:>6.1} requests/s; {} served, {} refused, {} failed",
                users.rate(elapsed),
                counts.served,
                counts.refused,
                counts.failed
            ),
            String::new(),
        ];
        lines.extend(self.decisions.iter().cloned());
        let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).max(20);
        let mut screen = String::new();
        if self.drawn_lines > 0 {
            screen.push_str(&format!("\x1b[{}A", self.drawn_lines));
        }
        for line in &lines {
            screen.extend(line.chars().take(width - 1));
            screen.push_str("\x1b[K\n");
        }
        self.drawn_lines = lines.len();
        let mut out = std::io::stdout().lock();
        // A terminal that went away is no reason to stop measuring.
        drop(out.write_all(screen.as_bytes()).and_then(|()| out.flush()));
    }
}

fn one_line(elapsed: Duration, pool: &PoolSnapshot, deployment: &Deployment, users: &Users) -> String {
    format!(
        "servers {}/{}  load {:.1}/s  KV {}  queue {}  held {}  in flight {}  saturation {}",
        deployment.ready_count(),
        deployment.count(),
        users.rate(elapsed),
        percent(pool, false),
        shown(&pool.total_queue_size(), 0),
        shown(&pool.held, 0),
        shown(&pool.total_inflight(), 0),
        saturation(pool),
    )
}

/// A value, or a dash where it is not known.
fn shown(measurement: &Measurement, decimals: usize) -> String {
    measurement.as_ref().map_or_else(|_| "-".into(), |measured| format!("{:.decimals$}", measured.value))
}

fn percent(pool: &PoolSnapshot, hottest: bool) -> String {
    let signal = LoadSignal::KvCacheUtilization;
    let measurement = if hottest { pool.max(signal) } else { pool.mean(signal) };
    measurement.map_or_else(|_| "-".into(), |measured| format!("{:.0} %", measured.value * 100.0))
}

fn saturation(pool: &PoolSnapshot) -> String {
    match pool.saturation() {
        Saturation::Known(value) => format!("{value:.2}"),
        Saturation::NoEndpoints { .. } | Saturation::Unknown(_) => "-".into(),
    }
}

fn sparkline(points: &VecDeque<f64>) -> String {
    let highest = points.iter().copied().fold(1.0, f64::max);
    points.iter().map(|point| BARS[((point / highest) * (BARS.len() - 1) as f64).round() as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_reaches_from_the_lowest_bar_to_the_highest() {
        assert_eq!(sparkline(&VecDeque::from([0.0, 4.0, 8.0])), "▁▅█");
        assert_eq!(sparkline(&VecDeque::from([0.0, 0.0])), "▁▁");
        assert_eq!(sparkline(&VecDeque::new()), "");
    }
}
