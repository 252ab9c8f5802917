//! How a wait ends.

use crate::inference::{Code, Refusal};
use crate::request::shutting_down;

/// Seconds after which a full pool is worth another try.
const RETRY_FULL: u32 = 1;
/// Seconds after which a pool without endpoints is worth another try, where nothing is known of how long starts take.
pub(crate) const RETRY_NO_ENDPOINTS: u32 = 5;

/// How a request's time in the queue ended, by upstream's names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// It was its turn.
    Dispatched,
    /// It was not let in: a limit is reached.
    RejectedCapacity,
    /// The same, while the pool has no endpoint.
    RejectedNoEndpoints,
    /// It was not let in for another reason: the picker ends.
    RejectedOther,
    /// It waited as long as it may.
    EvictedTtl,
    /// The same, while the pool has no endpoint.
    EvictedNoEndpoints,
    /// Its client has gone.
    EvictedContextCancelled,
    /// It had to leave for another reason: the picker ends, or the pool is no more.
    EvictedOther,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Dispatched,
        Self::RejectedCapacity,
        Self::RejectedNoEndpoints,
        Self::RejectedOther,
        Self::EvictedTtl,
        Self::EvictedNoEndpoints,
        Self::EvictedContextCancelled,
        Self::EvictedOther,
    ];

    /// The label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dispatched => "Dispatched",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::RejectedOther => "RejectedOther",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedNoEndpoints => "EvictedNoEndpoints",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::EvictedOther => "EvictedOther",
        }
    }

    /// What the caller is told, with the statuses and reasons of llm-d's newest. A pool without endpoints is worth another try after
    /// `retry_empty` seconds.
    pub(crate) fn refusal(self, retry_empty: u32) -> Refusal {
        let full = |message: &str, reason| Refusal {
            code: Code::ResourceExhausted,
            message: message.to_owned(),
            reason: Some(reason),
            retry_after: Some(RETRY_FULL),
        };
        let nobody = |message: &str| Refusal {
            code: Code::ServiceUnavailable,
            message: message.to_owned(),
            reason: Some("rejected-no-endpoints"),
            retry_after: Some(retry_empty),
        };
        match self {
            Self::RejectedCapacity => full("request rejected pre-queue: queue at capacity", "rejected-saturated"),
            Self::EvictedTtl => {
                full("request timed out in queue: request evicted from queue: request TTL expired", "rejected-ttl-expired")
            }
            Self::RejectedNoEndpoints => nobody("no endpoints available: request rejected pre-queue: queue at capacity"),
            Self::EvictedNoEndpoints => {
                nobody("no endpoints available: request timed out in queue: request evicted from queue: request TTL expired")
            }
            Self::EvictedContextCancelled => Refusal {
                code: Code::ServiceUnavailable,
                message: "client disconnected: request evicted from queue".to_owned(),
                reason: Some("rejected-context-cancelled"),
                retry_after: None,
            },
            Self::RejectedOther | Self::EvictedOther => shutting_down(),
            Self::Dispatched => Refusal {
                code: Code::Internal,
                message: "the picker failed over this request".to_owned(),
                reason: None,
                retry_after: None,
            },
        }
    }
}
