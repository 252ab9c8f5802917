//! Whether the demo did what it says it does.

use std::net::SocketAddr;

use weir_datastore::PoolSnapshot;

use super::autoscaler::{ApiClient, METRIC, Turn};
use super::load::Counts;
use super::{NAMESPACE, POOL};

/// What is said at the end.
pub(crate) struct Report {
    /// One paragraph.
    pub(crate) summary: String,
    /// What did not go as it must.
    pub(crate) problems: Vec<String>,
}

/// Collects what happened.
pub(crate) struct Checks {
    exporter: SocketAddr,
    api: ApiClient,
    turns: u32,
    ups: u32,
    downs: u32,
    zeros: u32,
    wakes: u32,
    held: u64,
    most: u32,
    last: u32,
    unread: Vec<String>,
    users: Counts,
    problems: Vec<String>,
}

impl Checks {
    /// Nothing happened yet.
    pub(crate) fn new(exporter: SocketAddr, adapter: SocketAddr, ca_pem: &str) -> anyhow::Result<Self> {
        Ok(Self {
            exporter,
            api: ApiClient::new(adapter, ca_pem)?,
            turns: 0,
            ups: 0,
            downs: 0,
            zeros: 0,
            wakes: 0,
            held: 0,
            most: 0,
            last: 0,
            unread: Vec::new(),
            users: Counts::default(),
            problems: Vec::new(),
        })
    }

    /// The autoscaler decided.
    pub(crate) fn saw(&mut self, turn: &Turn) {
        self.turns += 1;
        self.ups += u32::from(turn.desired > turn.current);
        self.downs += u32::from(turn.desired < turn.current);
        self.zeros += u32::from(turn.desired == 0 && turn.current > 0);
        self.wakes += u32::from(turn.desired > 0 && turn.current == 0);
        self.most = self.most.max(turn.desired);
        self.last = turn.desired;
        if let Err(error) = &turn.reading {
            self.unread.push(error.clone());
        }
    }

    /// The pool as it is.
    pub(crate) fn looked(&mut self, pool: &PoolSnapshot) {
        if let Ok(held) = &pool.held {
            self.held = self.held.max(held.value as u64);
        }
    }

    /// What became of the users' requests.
    pub(crate) fn users(&mut self, counts: Counts) {
        self.users = counts;
    }

    /// The same metric under its own name and under the name GKE gives it, and on the exporter's page.
    pub(crate) async fn compare_names(&mut self) {
        let gke = format!("prometheus.googleapis.com|{METRIC}|gauge");
        for (metric, key) in [(METRIC, "name"), (gke.as_str(), "metric.labels.name")] {
            match self.api.list(metric, key).await {
                Ok(list) if list.kind == "ExternalMetricValueList" && list.items.len() == 1 => {}
                Ok(list) => self.problems.push(format!("{metric}: one item was expected, not {list:?}")),
                Err(error) => self.problems.push(format!("{metric}: {error}")),
            }
        }
        let family = "inference_pool_average_kv_cache_utilization";
        let series = format!("{family}{{name=\"{POOL}\",namespace=\"{NAMESPACE}\"}} ");
        match self.page().await {
            Ok(page) if page.contains(&series) => {}
            Ok(_) => self.problems.push(format!("the exporter's page has no series {series}")),
            Err(failure) => self.problems.push(format!("the exporter's page cannot be read: {}", failure.message)),
        }
    }

    async fn page(&self) -> Result<String, weir_collector::ScrapeFailure> {
        let url = format!("http://{}/metrics", self.exporter);
        let fetched = weir_collector::fetch_page(&url, &weir_collector::FetchConfig::default()).await?;
        Ok(String::from_utf8_lossy(&fetched.bytes).into_owned())
    }

    /// What there is to say; `whole_cycle`: the load rose and fell, so the servers must have followed.
    pub(crate) fn report(mut self, whole_cycle: bool) -> Report {
        if whole_cycle && self.ups == 0 {
            self.problems.push("the autoscaler never added a server".into());
        }
        if whole_cycle && self.downs == 0 {
            self.problems.push("the autoscaler never removed a server".into());
        }
        if whole_cycle && (self.zeros == 0 || self.wakes == 0 || self.held == 0) {
            self.problems.push(format!(
                "servers went to zero {} times and came back {} times, with {} requests held at most: each was to happen",
                self.zeros, self.wakes, self.held
            ));
        }
        if let Some(last) = self.unread.last() {
            self.problems.push(format!(
                "{} of {} reads of the metrics API failed, the last with: {last}",
                self.unread.len(),
                self.turns
            ));
        }
        if self.users.served == 0 {
            self.problems.push("no request of a user was served".into());
        }
        if self.users.failed > 0 {
            let last = self.users.last_failure.as_deref().unwrap_or("unknown");
            self.problems
                .push(format!("{} of {} requests of users failed, the last with: {last}", self.users.failed, self.users.sent));
        }
        let summary = format!(
            "scaled up {} times (to {} servers at most) and down {} times, {} times to zero; {} held requests at most; {} requests \
             served, {} refused by full servers, {} failed; {} decisions on values read over HTTPS",
            self.ups,
            self.most,
            self.downs,
            self.zeros,
            self.held,
            self.users.served,
            self.users.refused,
            self.users.failed,
            self.turns,
        );
        Report { summary, problems: self.problems }
    }
}
