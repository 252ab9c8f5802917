//! A HorizontalPodAutoscaler over the simulated pool: the real arithmetic, as often as the controller.

use std::time::Duration;

use weir_hpa::{Decision, Hpa, HpaSpec, MetricReading, MetricSource, Replicas, SpecError, milli};

use super::required::{Estimator, RequiredOptions};
use crate::sample::{Metric, PodMetric, PoolSample};

/// Why an HPA cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The API server would refuse it.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A metric the simulated pool has not.
    #[error("metric {name} is not one the simulation knows; it knows {known}")]
    Metric {
        /// The metric.
        name: String,
        /// Those there are.
        known: String,
    },
}

#[derive(Clone, Copy)]
enum Source {
    Pool(Metric),
    Pod(PodMetric),
}

/// An HPA with what it reads.
pub struct HpaPolicy {
    hpa: Hpa,
    sources: Vec<Source>,
    estimator: Option<Estimator>,
    sync: u64,
    phase: u64,
}

impl HpaPolicy {
    /// The HPA of a spec, which decides every `sync` seconds. `phase`: in which of them.
    ///
    /// # Errors
    /// [`PolicyError`] for a spec the API server refuses, or a metric that is not simulated.
    pub fn new(spec: HpaSpec, options: &RequiredOptions, sync: u64, phase: u64) -> Result<Self, PolicyError> {
        let mut sources = Vec::with_capacity(spec.metrics.len());
        for metric in &spec.metrics {
            let source = match metric.source {
                MetricSource::Pods => PodMetric::by_name(&metric.name).map(Source::Pod),
                MetricSource::External | MetricSource::Object { .. } => Metric::by_name(&metric.name).map(Source::Pool),
            };
            let known = || match metric.source {
                MetricSource::Pods => PodMetric::ALL.map(|(name, _)| name).join(", "),
                _ => Metric::ALL.map(|(name, _)| name).join(", "),
            };
            sources.push(source.ok_or_else(|| PolicyError::Metric { name: metric.name.clone(), known: known() })?);
        }
        let wanted = sources.iter().any(|source| matches!(source, Source::Pool(Metric::Required)));
        let mut hpa = Hpa::new(spec)?;
        // A pool that begins without pods is there by the HPA's own doing.
        hpa.set_scaled_to_zero(true);
        let sync = sync.max(1);
        Ok(Self { hpa, sources, estimator: wanted.then(|| Estimator::new(options)), sync, phase: phase % sync })
    }

    /// The spec in force.
    pub fn spec(&self) -> &HpaSpec {
        self.hpa.spec()
    }

    pub(crate) fn estimator(&self) -> Option<&Estimator> {
        self.estimator.as_ref()
    }

    pub(crate) fn second(&mut self, second: u64, sample: &PoolSample, current: &Replicas) -> Option<Decision> {
        let required = self.estimator.as_mut().and_then(|estimator| estimator.second(sample));
        if second % self.sync != self.phase {
            return None;
        }
        let readings: Vec<MetricReading> = self.sources.iter().map(|source| read(*source, sample, required)).collect();
        Some(self.hpa.sync(Duration::from_secs(second), current, &readings))
    }
}

fn read(source: Source, sample: &PoolSample, required: Option<f64>) -> MetricReading {
    let value = match source {
        Source::Pool(Metric::Required) => required,
        Source::Pool(metric) => sample.value(metric),
        Source::Pod(metric) => {
            let items = sample.pods.iter().filter_map(|pod| Some((format!("pod-{}", pod.id), milli(metric.of(pod))?)));
            return MetricReading::per_pod(items);
        }
    };
    match value.and_then(milli) {
        Some(milli) => MetricReading::item(milli),
        None => MetricReading::Error("the value is not known".to_owned()),
    }
}
