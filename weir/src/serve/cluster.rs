//! The connection to a Kubernetes cluster, and what servers need of it: who calls, who may, certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_serving::{
    AccessReviewSettings, AccessReviews, Authenticator, ClusterCertificates, ClusterTrust, FrontProxy, Health, ServingMetrics,
    SharedAuthority, SharedAuthoritySettings, TokenReviewSettings, TokenReviews,
};

use crate::args::{PoolsArguments, ReadingArguments, ServiceName};

/// A cluster that answers.
pub(crate) struct Cluster {
    /// How it is asked.
    pub(crate) client: kube::Client,
    /// Whom it lets vouch for others.
    pub(crate) trust: ClusterTrust,
    /// What callers may do.
    pub(crate) reviews: Arc<AccessReviews>,
    tokens: Arc<TokenReviews>,
}

impl Cluster {
    /// The cluster that the arguments speak of, if they do.
    pub(crate) async fn of(
        arguments: &PoolsArguments,
        review_ttl: Duration,
        metrics: &ServingMetrics,
    ) -> anyhow::Result<Option<Self>> {
        let reading = &arguments.reading;
        let wanted = arguments.pools.is_none() || reading.cluster.is_given();
        if !wanted {
            return Ok(None);
        }
        Self::connect(reading, review_ttl, metrics).await.context("no cluster (--pools FILE works without one)").map(Some)
    }

    /// The cluster that the arguments name, or the one around this process.
    pub(crate) async fn connect(
        arguments: &ReadingArguments,
        review_ttl: Duration,
        metrics: &ServingMetrics,
    ) -> anyhow::Result<Self> {
        let client = arguments.cluster.options().connect().await?;
        let access = AccessReviewSettings { keep_allowed: review_ttl, keep_denied: review_ttl, ..AccessReviewSettings::default() };
        let tokens = TokenReviewSettings { keep: review_ttl, ..TokenReviewSettings::default() };
        Ok(Self {
            trust: ClusterTrust::new(metrics.clone()),
            reviews: Arc::new(AccessReviews::new(client.clone(), access, metrics)),
            tokens: Arc::new(TokenReviews::new(client.clone(), tokens, metrics)?),
            client,
        })
    }

    /// The ways in which Kubernetes' own servers know callers, in their order. Certificates need TLS.
    pub(crate) fn authenticators(&self, tls: bool) -> Vec<Arc<dyn Authenticator>> {
        let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
        if tls {
            ways.push(Arc::new(FrontProxy::new(self.trust.clone())));
            ways.push(Arc::new(ClusterCertificates::new(self.trust.clone())));
        }
        ways.push(self.tokens.clone());
        ways
    }

    /// The certificate authority that all replicas behind `service` share.
    pub(crate) fn shared_authority(
        &self,
        service: &ServiceName,
        secret: &str,
        metrics: &ServingMetrics,
    ) -> anyhow::Result<Arc<SharedAuthority>> {
        let settings = SharedAuthoritySettings::new(&service.namespace, secret);
        Ok(Arc::new(SharedAuthority::new(settings, SystemTime::now, metrics.clone())?))
    }

    /// Follows what the cluster says of trust; `health` is not ready before it was read once.
    pub(crate) fn follow(&self, health: &Health, tasks: &mut JoinSet<()>, stop: CancellationToken) {
        tasks.spawn(self.trust.follow(self.client.clone(), health, stop));
    }
}
