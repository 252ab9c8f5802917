//! Users by their own certificate, issued by the cluster.

use std::time::SystemTime;

use aws_lc_rs::digest;
use http::request::Parts;

use super::{
    peer_chain::{PeerChain, Standing},
    trust::ClusterTrust,
};
use crate::{Authenticator, Caller, Decision, Verdict};

/// Under this key of a caller's extra attributes is what identifies its certificate.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Accepts a certificate that the cluster's client CA issued: user = common name, groups = organisations.
#[derive(Clone, Debug)]
pub struct ClusterCertificates {
    trust: ClusterTrust,
}

impl ClusterCertificates {
    /// As `trust` says at each request.
    pub fn new(trust: ClusterTrust) -> Self {
        Self { trust }
    }

    fn judge(&self, request: &Parts, now: SystemTime) -> Verdict {
        let (Some(chain), Some(trust)) = (request.extensions.get::<PeerChain>(), self.trust.current()) else {
            return Verdict::NoOpinion;
        };
        match (chain.judge(&trust, now).client, chain.leaf()) {
            (Standing::Unknown, _) => Verdict::NoOpinion,
            (Standing::Refused, _) => Verdict::Rejected("the client certificate is of no authority of the cluster, or not valid"),
            (Standing::Verified, None) => Verdict::Rejected("the client certificate cannot be read"),
            (Standing::Verified, Some(leaf)) if leaf.common_name.is_empty() => Verdict::NoOpinion,
            (Standing::Verified, Some(leaf)) => {
                let extra = [(CREDENTIAL_ID.to_owned(), vec![credential_id(chain.leaf_der())])].into();
                let caller = Caller::new(leaf.common_name.clone(), leaf.organizations.iter().cloned());
                Verdict::Accepted(caller.with_extra(extra))
            }
        }
    }
}

fn credential_id(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X509SHA256={hex}")
}

impl Authenticator for ClusterCertificates {
    fn name(&self) -> &'static str {
        "cluster certificate"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, now: SystemTime) -> Decision<'a> {
        Box::pin(std::future::ready(self.judge(request, now)))
    }

    fn needs_client_certificates(&self) -> bool {
        true
    }
}
