//! What is told of the registration.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::judge::State;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    apiservice: String,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    apiservice: String,
    result: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RegistrationMetrics {
    states: Family<StateLabels, Gauge>,
    writes: Family<WriteLabels, Counter>,
}

impl RegistrationMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_adapter_apiservice_state",
            "1 for the state each APIService is in: ours, foreign, absent, outdated (ours, to be written), unknown (cannot be read)",
            metrics.states.clone(),
        );
        registry.register("weir_adapter_apiservice_writes", "Writes to APIServices, by result", metrics.writes.clone());
        metrics
    }

    pub(super) fn is_in(&self, apiservice: &str, state: State) {
        for one in State::ALL {
            let labels = StateLabels { apiservice: apiservice.to_owned(), state: one.label() };
            self.states.get_or_create(&labels).set(i64::from(one == state));
        }
    }

    pub(super) fn wrote(&self, apiservice: &str, result: &'static str) {
        self.writes.get_or_create(&WriteLabels { apiservice: apiservice.to_owned(), result }).inc();
    }
}
