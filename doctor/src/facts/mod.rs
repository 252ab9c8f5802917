//! What is known of a cluster: no more than the checks look at.
//!
//! The types are those of Kubernetes with most fields left out, and every field may be missing: what is not known is never taken for
//! what is not there. Secrets, environment values, prompts and log lines have no place to be in.
//!
//! [`Listing`] says of each kind whether it could be listed, and where; [`record`] writes all of it to one file and reads it again.

pub(crate) mod gateway;
mod listing;
pub(crate) mod meta;
pub(crate) mod monitoring;
pub(crate) mod observed;
pub(crate) mod pool;
mod record;
pub(crate) mod scaling;
pub(crate) mod scrub;
pub(crate) mod workload;

use serde::{Deserialize, Serialize};

pub(crate) use listing::{Listing, Reason};
pub use record::{FORMAT, LARGEST, RecordError};

/// Declares types of which every field may be missing.
macro_rules! facts {
    ($($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            $($(#[$field_about])* #[serde(skip_serializing_if = "Option::is_none")] pub(crate) $field: Option<$kind>,)*
        }
    )*};
}
pub(crate) use facts;

/// All that is known of a cluster at one moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// The form of the file.
    pub(crate) version: Option<u32>,
    /// The program that recorded it.
    pub(crate) recorded_by: Option<String>,
    /// When, as RFC 3339 has it.
    pub(crate) recorded_at: Option<String>,
    /// `gitVersion` of the API server.
    pub(crate) kubernetes: Option<String>,
    pub(crate) crds: Listing<workload::Crd>,
    pub(crate) gateways: Listing<gateway::Gateway>,
    pub(crate) routes: Listing<gateway::Route>,
    pub(crate) grants: Listing<gateway::Grant>,
    pub(crate) destination_rules: Listing<gateway::DestinationRule>,
    pub(crate) pools: Listing<pool::Pool>,
    pub(crate) old_pools: Listing<pool::Pool>,
    pub(crate) objectives: Listing<pool::Objective>,
    pub(crate) rewrites: Listing<pool::Rewrite>,
    pub(crate) models: Listing<pool::Model>,
    pub(crate) pods: Listing<workload::Pod>,
    pub(crate) services: Listing<workload::Service>,
    pub(crate) deployments: Listing<workload::Workload>,
    pub(crate) stateful_sets: Listing<workload::Workload>,
    pub(crate) leader_worker_sets: Listing<workload::Workload>,
    pub(crate) jobs: Listing<workload::Job>,
    pub(crate) nodes: Listing<workload::Node>,
    pub(crate) disruption_budgets: Listing<workload::DisruptionBudget>,
    pub(crate) events: Listing<workload::Event>,
    /// Events of changes of size, which only an explanation asks for: in no record.
    #[serde(skip)]
    pub(crate) rescales: Listing<workload::Event>,
    pub(crate) autoscalers: Listing<scaling::Autoscaler>,
    pub(crate) scaled_objects: Listing<scaling::ScaledObject>,
    pub(crate) api_services: Listing<scaling::ApiService>,
    pub(crate) service_monitors: Listing<monitoring::ServiceMonitor>,
    pub(crate) pod_monitors: Listing<monitoring::PodMonitor>,
    pub(crate) pod_monitorings: Listing<monitoring::PodMonitoring>,
    pub(crate) prometheuses: Listing<monitoring::Prometheus>,
    /// Secrets that monitors name: whether they are there, nothing of what is in them.
    pub(crate) secrets: Listing<monitoring::SecretName>,
    pub(crate) pages: Listing<observed::Page>,
    pub(crate) served_models: Listing<observed::ServedModels>,
    pub(crate) picker_dials: Listing<observed::Dial>,
    pub(crate) picker_configs: Listing<observed::PickerConfig>,
    pub(crate) log_signs: Listing<observed::LogSign>,
}
