//! The autoscaler of the demo: reads the metrics API over HTTPS as the HorizontalPodAutoscaler does, and decides with its arithmetic.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::time::Instant;
use weir_adapter::Quantity;
use weir_hpa::{
    Behavior, Decision, Hpa, HpaSpec, Limit, MetricReading, MetricSpec, Replicas, Rule, ScalingPolicy, ScalingRules, Stabilized,
    Target, format_milli,
};

use super::deployment::MAX_RUNNING;
use super::{NAMESPACE, POOL};

/// How often it decides; 15 s on a cluster.
pub(crate) const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// How long a lower proposal must last before it is followed; 600 s is the recommendation for a cluster.
const DOWN_WINDOW_SECONDS: u32 = 6;

/// Most servers.
const MAX_REPLICAS: u32 = 8;

/// The metric it follows.
pub(crate) const METRIC: &str = "inference_pool_total_inflight_requests";

/// Requests in flight per server that it aims at: a quarter of what one runs at once.
const TARGET: u32 = MAX_RUNNING / 4;

/// A metrics page or answer larger than this is not one of ours.
const LARGEST_ANSWER: usize = 1 << 20;

/// One decision, and what it was made from.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// Servers before.
    pub(crate) current: u32,
    /// Servers from now on.
    pub(crate) desired: u32,
    /// What was read in milli-units, or why it could not be.
    pub(crate) reading: Result<i64, String>,
    /// Why, in words.
    pub(crate) reason: String,
}

/// Reads and decides.
pub(crate) struct Autoscaler {
    client: ApiClient,
    hpa: Hpa,
}

impl Autoscaler {
    /// An autoscaler of the adapter at `adapter`, whose authority is `ca_pem`.
    pub(crate) fn new(adapter: SocketAddr, ca_pem: &str) -> anyhow::Result<Self> {
        let metric = MetricSpec::external(METRIC, Target::AverageValue(i64::from(TARGET) * 1000));
        let mut spec = HpaSpec::new(0, MAX_REPLICAS, vec![metric]);
        // The controller's defaults, with periods compressed like the rest.
        let period = u32::try_from(SYNC_PERIOD.as_secs()).unwrap_or(1);
        let policies = vec![ScalingPolicy::pods(4, period), ScalingPolicy::percent(100, period)];
        let scale_up = ScalingRules { policies, ..ScalingRules::default_up() };
        let policies = vec![ScalingPolicy::percent(100, period)];
        let window = Some(DOWN_WINDOW_SECONDS);
        let scale_down = ScalingRules { stabilization_window_seconds: window, policies, ..ScalingRules::default_down() };
        spec.behavior = Some(Behavior { scale_up, scale_down });
        Ok(Self { client: ApiClient::new(adapter, ca_pem)?, hpa: Hpa::new(spec).context("the demo's HPA")? })
    }

    /// The HPA in a line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "HPA: External {METRIC}, AverageValue {TARGET} (a quarter of the {MAX_RUNNING} a server runs), 0 to {MAX_REPLICAS} servers; \
             time is compressed: sync every {} s (15 s on a cluster), scale-down window {DOWN_WINDOW_SECONDS} s (600 s), servers start \
             in {} s (minutes)",
            SYNC_PERIOD.as_secs(),
            super::deployment::START_DELAY.as_secs(),
        )
    }

    /// Waits until the API answers with a value.
    pub(crate) async fn wait_for_a_value(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.client.total(METRIC).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => bail!("the metrics API has no value after 10 s: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// One turn of the loop.
    pub(crate) async fn turn(&mut self, elapsed: Duration, replicas: Replicas) -> Turn {
        let reading = self.client.total(METRIC).await;
        let api_answer = match &reading {
            Ok(milli) => MetricReading::item(*milli),
            Err(error) => MetricReading::Error(error.clone()),
        };
        let decision = self.hpa.sync(elapsed, &replicas, &[api_answer]);
        Turn { current: decision.current, desired: decision.desired, reading, reason: in_words(&decision) }
    }
}

/// The arithmetic of a decision, and what became of its result.
fn in_words(decision: &Decision) -> String {
    let proposal = decision.proposals.first().and_then(|proposal| proposal.result.as_ref().ok());
    let Some(proposal) = proposal else { return decision.reason.clone() };
    let (usage, target) = (format_milli(proposal.usage_milli), format_milli(proposal.target.milli()));
    let arithmetic = match proposal.rule {
        Rule::UsageOverTarget => format!("{usage} in flight / {target} per server = {} servers", proposal.replicas),
        _ => proposal.to_string(),
    };
    let window = match decision.stabilized {
        Some(Stabilized::Down) => ", held back by the scale-down window",
        Some(Stabilized::Up) => ", held back by the scale-up window",
        None => "",
    };
    let limit = match decision.limit {
        Limit::WithinRange => "",
        Limit::TooFewReplicas => ", fewer than the minimum",
        Limit::TooManyReplicas => ", more than the maximum",
        Limit::ScaleUpLimit => ", limited by how fast it may grow",
        Limit::ScaleDownLimit => ", limited by how fast it may shrink",
    };
    format!("{arithmetic}{window}{limit}")
}

/// Asks the external metrics API.
pub(crate) struct ApiClient {
    client: reqwest::Client,
    adapter: SocketAddr,
}

/// What of an ExternalMetricValueList matters to an HPA.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct ValueList {
    pub(crate) kind: String,
    pub(crate) items: Vec<ValueItem>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ValueItem {
    pub(crate) metric_name: String,
    pub(crate) value: String,
}

impl ApiClient {
    /// A client that trusts `ca_pem` and nothing else.
    pub(crate) fn new(adapter: SocketAddr, ca_pem: &str) -> anyhow::Result<Self> {
        let authority = reqwest::Certificate::from_pem(ca_pem.as_bytes())?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .timeout(Duration::from_secs(5))
            .build()
            .context("the autoscaler's HTTP client")?;
        Ok(Self { client, adapter })
    }

    /// The path of `metric` for the demo's pool, chosen by the label `key`.
    pub(crate) fn path(metric: &str, key: &str) -> String {
        let metric = metric.replace('|', "%7C");
        format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{metric}?labelSelector={key}%3D{POOL}")
    }

    /// The answer of the API, or what it says instead.
    pub(crate) async fn list(&self, metric: &str, key: &str) -> Result<ValueList, String> {
        let url = format!("https://{}{}", self.adapter, Self::path(metric, key));
        let mut response = self.client.get(&url).send().await.map_err(|error| format!("{url}: {error}"))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| format!("{url}: {error}"))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(format!("{url}: an answer of more than {LARGEST_ANSWER} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        if status != 200 {
            let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let message = message.as_ref().and_then(|status| status["message"].as_str()).unwrap_or("no message");
            return Err(format!("{status}: {message}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }

    /// The sum of the items of `metric` in milli-units, as an HPA adds them.
    async fn total(&self, metric: &str) -> Result<i64, String> {
        let list = self.list(metric, "name").await?;
        if list.items.is_empty() {
            return Err("no metrics returned from external metrics API".into());
        }
        let mut milli = 0i64;
        for item in &list.items {
            let quantity: Quantity = item.value.parse().map_err(|error| format!("{}: {error}", item.value))?;
            milli = milli.saturating_add(quantity.milli());
        }
        Ok(milli)
    }
}
