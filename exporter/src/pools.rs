//! The pools as series, computed when the page is written.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;
use weir_datastore::{Datastore, EndpointView, Freshness, PoolSnapshot, START_BUCKETS, StartPhase, catalog};

/// Writes every family of the catalog for every pool. A value that is not known is not written.
#[derive(Debug)]
pub struct PoolSeries {
    datastore: Datastore,
    endpoint_series: usize,
}

impl PoolSeries {
    /// Series of the pools in `datastore`, at most `endpoint_series` per pool of those that name an endpoint.
    pub fn new(datastore: Datastore, endpoint_series: usize) -> Self {
        Self { datastore, endpoint_series }
    }
}

impl Collector for PoolSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut pools = self.datastore.snapshots(Instant::now());
        let models: Vec<Vec<Arc<str>>> = pools.iter().map(PoolSnapshot::models).collect();
        for family in catalog::FAMILIES {
            if family.is_by_model() {
                write(&mut encoder, family.name, family.help, by_model(family, &mut pools, &models).into_iter())?;
            } else {
                let series = pools.iter().filter_map(|pool| Some((pool_labels(pool), (family.measure)(pool).ok()?.value)));
                write(&mut encoder, family.name, family.help, series)?;
            }
        }
        let (name, help) = catalog::ENDPOINTS;
        let by_state = pools.iter().flat_map(|pool| {
            Freshness::ALL.map(|state| {
                let [name, namespace] = pool_labels(pool);
                ([name, namespace, ("state", state.label().to_owned())], pool.coverage.count(state) as f64)
            })
        });
        write(&mut encoder, name, help, by_state)?;
        let (name, help) = catalog::PER_POD_QUEUE_SIZE;
        let by_endpoint = pools.iter().flat_map(|pool| {
            let waiting = |view: &EndpointView| Some((view.endpoint.spec.clone(), view.fresh_load()?.waiting?.value));
            pool.endpoints.iter().filter_map(waiting).take(self.endpoint_series).map(|(endpoint, waiting)| {
                let [name, namespace] = pool_labels(pool);
                // Upstream's form of the label.
                let pod = format!("{}-rank-{}", endpoint.pod, endpoint.rank);
                ([name, namespace, ("model_server_pod", pod)], waiting)
            })
        });
        write(&mut encoder, name, help, by_endpoint)?;
        cold_starts(&mut encoder, &pools)?;
        let left_out =
            pools.iter().map(|pool| (pool_labels(pool), pool.coverage.fresh.saturating_sub(self.endpoint_series) as f64));
        let help = "Fresh endpoints of the pool beyond the limit on series that name an endpoint.";
        write(&mut encoder, "weir_exporter_endpoint_series_left_out", help, left_out)
    }
}

/// Labels of a series.
type Labels = Vec<(&'static str, String)>;

/// A value of each pool over all models, without the label `model`, and one of each of its `models`. One snapshot serves all of them.
fn by_model(family: &catalog::Family, pools: &mut [PoolSnapshot], models: &[Vec<Arc<str>>]) -> Vec<(Labels, f64)> {
    let mut series = Vec::new();
    for (pool, models) in pools.iter_mut().zip(models) {
        for model in std::iter::once(None).chain(models.iter().map(Some)) {
            pool.set_model(model.cloned());
            if let Ok(measured) = (family.measure)(pool) {
                let labels = pool_labels(pool).into_iter().chain(model.map(|model| ("model", model.to_string())));
                series.push((labels.collect(), measured.value));
            }
        }
        pool.set_model(None);
    }
    series
}

/// A histogram for each phase of starts that was seen.
fn cold_starts(encoder: &mut DescriptorEncoder<'_>, pools: &[PoolSnapshot]) -> Result<(), fmt::Error> {
    let histograms = pools.iter().flat_map(|pool| StartPhase::ALL.map(|phase| (pool, phase, pool.start_histogram(phase))));
    let mut seen = histograms.filter(|(_, _, histogram)| histogram.count() > 0).peekable();
    if seen.peek().is_none() {
        return Ok(());
    }
    let (name, help) = catalog::COLD_START;
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (pool, phase, histogram) in seen {
        let [name, namespace] = pool_labels(pool);
        let labels = [name, namespace, ("phase", phase.label().to_owned())];
        let bounds = START_BUCKETS.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts).collect();
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)?;
    }
    Ok(())
}

fn pool_labels(pool: &PoolSnapshot) -> [(&'static str, String); 2] {
    [("name", pool.id.name.to_string()), ("namespace", pool.id.namespace.to_string())]
}

fn write<Labels: AsRef<[(&'static str, String)]>>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels, f64)>,
) -> Result<(), fmt::Error> {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        ConstGauge::new(value).encode(family.encode_family(&labels.as_ref())?)?;
    }
    Ok(())
}
