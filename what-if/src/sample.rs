//! What the metrics API would say of the simulated pool, once a second.

use crate::replica::Page;

/// One ready pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodSample {
    pub(crate) id: u64,
    pub(crate) ready_for: f64,
    pub(crate) page: Page,
}

/// The pool at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolSample {
    pub(crate) at: f64,
    pub(crate) pods: Vec<PodSample>,
    pub(crate) starting: u32,
    pub(crate) held: usize,
    pub(crate) arrivals: f64,
    pub(crate) prompt_tokens: f64,
    /// Start times of pods that became ready since the last sample.
    pub(crate) started: Vec<f64>,
}

/// Queue per server and KV cache use at which a pool is full (design §5.7; the upstream picker's defaults).
pub(crate) const FULL_QUEUE: f64 = 5.0;
pub(crate) const FULL_KV: f64 = 0.8;

/// A metric of a pool, as `docs/metrics.md` defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Mean requests waiting per server.
    AverageQueue,
    /// Most requests waiting at a server.
    MaxQueue,
    /// Requests waiting at servers and held.
    TotalQueue,
    /// Mean requests running per server.
    AverageRunning,
    /// Most requests running at a server.
    MaxRunning,
    /// Requests running.
    TotalRunning,
    /// Requests running, waiting and held.
    TotalInFlight,
    /// Mean KV cache use.
    AverageKv,
    /// Highest KV cache use.
    MaxKv,
    /// KV cache use, summed over servers.
    TotalKv,
    /// Mean over servers of the larger of queue / 5 and KV cache use / 0.8.
    Saturation,
    /// Requests held in pickers.
    Held,
    /// Replicas required.
    Required,
}

impl Metric {
    /// Every metric with its name.
    pub const ALL: [(&'static str, Self); 13] = [
        ("inference_pool_average_queue_size", Self::AverageQueue),
        ("inference_pool_max_queue_size", Self::MaxQueue),
        ("inference_pool_total_queue_size", Self::TotalQueue),
        ("inference_pool_average_running_requests", Self::AverageRunning),
        ("inference_pool_max_running_requests", Self::MaxRunning),
        ("inference_pool_total_running_requests", Self::TotalRunning),
        ("inference_pool_total_inflight_requests", Self::TotalInFlight),
        ("inference_pool_average_kv_cache_utilization", Self::AverageKv),
        ("inference_pool_max_kv_cache_utilization", Self::MaxKv),
        ("inference_pool_total_kv_cache_utilization", Self::TotalKv),
        ("inference_pool_saturation", Self::Saturation),
        ("inference_pool_held_requests", Self::Held),
        ("inference_pool_required_replicas", Self::Required),
    ];

    /// The metric of that name; also in the form of the Stackdriver adapter, `prometheus.googleapis.com|NAME|gauge`.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("prometheus.googleapis.com|").map_or(name, |rest| rest.split('|').next().unwrap_or(rest));
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    /// Whether it is above 0 while requests are held and no pod exists, so that it can end zero.
    pub fn sees_held(self) -> bool {
        matches!(self, Self::TotalQueue | Self::TotalInFlight | Self::Saturation | Self::Held | Self::Required)
    }
}

/// A metric per pod, for an HPA's Pods metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMetric {
    /// Requests waiting.
    Queue,
    /// Requests running.
    Running,
    /// KV cache use.
    Kv,
}

impl PodMetric {
    /// Every metric with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("inference_pod_queue_size", Self::Queue),
        ("inference_pod_running_requests", Self::Running),
        ("inference_pod_kv_cache_utilization", Self::Kv),
    ];

    /// The metric of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    pub(crate) fn of(self, pod: &PodSample) -> f64 {
        match self {
            Self::Queue => f64::from(pod.page.waiting),
            Self::Running => f64::from(pod.page.running),
            Self::Kv => pod.page.kv,
        }
    }
}

impl PoolSample {
    /// The value of a metric; `None` where the API would answer an error. [`Metric::Required`] is computed elsewhere.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        let held = self.held as f64;
        let queue = |pod: &PodSample| f64::from(pod.page.waiting);
        let running = |pod: &PodSample| f64::from(pod.page.running);
        let kv = |pod: &PodSample| pod.page.kv;
        match metric {
            Metric::AverageQueue => self.mean(queue),
            Metric::MaxQueue => self.most(queue),
            Metric::AverageRunning => self.mean(running),
            Metric::MaxRunning => self.most(running),
            Metric::AverageKv => self.mean(kv),
            Metric::MaxKv => self.most(kv),
            Metric::TotalKv => self.sum(kv, 0.0),
            Metric::TotalRunning => self.sum(running, 0.0),
            Metric::TotalQueue => self.sum(queue, held),
            Metric::TotalInFlight => self.sum(|pod| queue(pod) + running(pod), held),
            Metric::Held => Some(held),
            Metric::Saturation if self.pods.is_empty() => Some(if held > 0.0 { 1.0 } else { 0.0 }),
            Metric::Saturation => self.mean(|pod| (queue(pod) / FULL_QUEUE).max(kv(pod) / FULL_KV)),
            Metric::Required => None,
        }
    }

    /// Without pods a mean is 0; with pods of which none is ready it is not known.
    fn mean(&self, of: impl Fn(&PodSample) -> f64) -> Option<f64> {
        match (self.pods.len(), self.starting) {
            (0, 0) => Some(0.0),
            (0, _) => None,
            (count, _) => Some(self.pods.iter().map(of).sum::<f64>() / count as f64),
        }
    }

    fn most(&self, of: impl Fn(&PodSample) -> f64) -> Option<f64> {
        self.mean(&of).map(|_| self.pods.iter().map(of).fold(0.0, f64::max))
    }

    fn sum(&self, of: impl Fn(&PodSample) -> f64, held: f64) -> Option<f64> {
        if self.pods.is_empty() && self.starting > 0 && held == 0.0 {
            return None;
        }
        Some(self.pods.iter().map(of).sum::<f64>() + held)
    }
}
