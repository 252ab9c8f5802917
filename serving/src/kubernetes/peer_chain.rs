//! The certificates a client proved to hold, judged by what the cluster trusts now.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;

use super::trust::Trust;
use crate::PeerCertificate;

/// A judgement holds this long at most: authorities and intermediates end, too.
const JUDGED_ANEW: Duration = Duration::from_secs(60);

/// The chain as it was sent, leaf first; the handshake proved that the client holds the leaf's key, and nothing else.
/// A request extension. Clones share the judgement, which is made anew when the configuration changes: a connection
/// that is open does not outlive the trust in its certificate.
#[derive(Clone, Debug)]
pub(crate) struct PeerChain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chain: Vec<CertificateDer<'static>>,
    /// None where the leaf cannot be read.
    leaf: Option<PeerCertificate>,
    judged: Mutex<Option<(u64, SystemTime, Judgement)>>,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) front_proxy: Standing,
    pub(super) client: Standing,
}

/// What one authority says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no such authority.
    Unknown,
    /// The chain does not end there, is not valid now, or is not for clients.
    Refused,
    /// It issued the certificate.
    Verified,
}

impl PeerChain {
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let leaf = chain.first().and_then(|leaf| PeerCertificate::from_der(leaf).ok());
        Self(Arc::new(Inner { chain, leaf, judged: Mutex::new(None) }))
    }

    /// The subject; not to be believed before a judgement.
    pub(super) fn leaf(&self) -> Option<&PeerCertificate> {
        self.0.leaf.as_ref()
    }

    /// The leaf's bytes.
    pub(super) fn leaf_der(&self) -> &[u8] {
        self.0.chain.first().map_or(&[], |leaf| leaf.as_ref())
    }

    pub(super) fn judge(&self, trust: &Trust, now: SystemTime) -> Judgement {
        // Held while verifying: the streams of one connection do not all verify at once.
        let mut judged = self.0.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((generation, at, judgement)) = *judged
            && generation == trust.generation
            && now.duration_since(at).is_ok_and(|age| age < JUDGED_ANEW)
            && self.leaf().is_some_and(|leaf| now < leaf.not_after)
        {
            return judgement;
        }
        let standing = |authority: Option<&super::trust::Authority>| match authority.map(|one| one.verify(&self.0.chain, now)) {
            None => Standing::Unknown,
            Some(Ok(())) => Standing::Verified,
            Some(Err(error)) => {
                tracing::debug!(error, "client certificate not verified");
                Standing::Refused
            }
        };
        let judgement = Judgement {
            front_proxy: standing(trust.front_proxy.as_ref().map(|proxy| &proxy.authority)),
            client: standing(trust.client.as_ref()),
        };
        *judged = Some((trust.generation, now, judgement));
        judgement
    }
}
