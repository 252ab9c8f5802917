//! `grpc.health.v1.Health`: whether requests can be placed, under any name.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use weir_serving::Health;

/// The name under which only a dead process would not serve.
const LIVENESS: &str = "liveness";

/// Every other name means readiness: charts and gateways ask under many.
pub struct HealthService {
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
    health: Health,
}

impl std::fmt::Debug for HealthService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HealthService").finish_non_exhaustive()
    }
}

impl HealthService {
    /// Ready means that `ready` says so and nothing of `health` is amiss.
    pub fn new(ready: Arc<dyn Fn() -> bool + Send + Sync>, health: Health) -> Self {
        Self { ready, health }
    }

    /// As a service of a gRPC server.
    pub fn into_server(self) -> HealthServer<Self> {
        HealthServer::new(self)
    }
}

#[tonic::async_trait]
impl HealthApi for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let ready = || (self.ready)() && self.health.not_ready().is_empty();
        let status = match request.get_ref().service == LIVENESS || ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    /// As with the Go picker: nobody watches.
    async fn watch(&self, _request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watching health is not supported: ask Check again"))
    }
}
