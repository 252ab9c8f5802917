//! What is known of endpoints to come, while there is none.

use std::time::Duration;

use weir_datastore::{EndpointState, PoolSnapshot};

use super::Shared;
use super::subset::Allowed;
use crate::flow::{Expectation, HoldEmpty, RETRY_NO_ENDPOINTS};
use crate::inference::Subset;

/// Nobody is told to stay away for longer, in seconds.
const LONGEST_RETRY: u32 = 600;

/// Whether a request for which there is no endpoint may hope for one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Outlook {
    /// Whether something will bring one.
    pub(super) comes: bool,
    /// Whether all that is missing is an endpoint, whichever: the pool has no other either.
    pub(super) is_empty: bool,
    /// Seconds after which it is worth another try.
    pub(super) retry_after: u32,
    /// What stands in the way, for people.
    pub(super) why: Option<String>,
}

impl Shared {
    /// What a request for endpoints of `subset`, of which none takes requests, may hope for.
    pub(super) fn outlook(&self, subset: &Subset, snapshot: &PoolSnapshot) -> Outlook {
        let allowed = Allowed::new(subset);
        let starts = snapshot.endpoints.iter().any(|view| {
            let spec = &view.endpoint.spec;
            spec.state == EndpointState::Unready
                && spec.address.socket_address().is_some_and(|address| allowed.contains(address))
                && !snapshot.is_hindered(&spec.pod)
        });
        let is_empty = snapshot.coverage.ready() == 0;
        let expectation = self.expectation.borrow();
        let expected = match &*expectation {
            Expectation::Endpoint(_) => true,
            Expectation::Pods(_) => snapshot.hindrance().is_none(),
            Expectation::Nothing | Expectation::Hindered(_) => false,
        };
        let promised = snapshot.hold || snapshot.is_pending() || expected;
        let comes = starts || (promised && is_empty);
        let why = match &*expectation {
            _ if comes => None,
            Expectation::Hindered(why) => Some(why.to_string()),
            Expectation::Nothing | Expectation::Endpoint(_) | Expectation::Pods(_) => snapshot.hindrance(),
        };
        Outlook { comes, is_empty, retry_after: retry_after(snapshot, comes), why }
    }

    /// Whether whoever has this outlook waits.
    pub(super) fn is_to_wait(&self, outlook: &Outlook) -> bool {
        self.gate.is_open()
            && match self.scheduling().flow.hold_empty {
                HoldEmpty::Never => false,
                HoldEmpty::Auto => outlook.comes,
                HoldEmpty::Always => outlook.comes || outlook.is_empty,
            }
    }
}

/// What remains of the start that began last; a whole one where none began, but one will.
fn retry_after(snapshot: &PoolSnapshot, comes: bool) -> u32 {
    let expected = || snapshot.expected_start().filter(|_| comes);
    snapshot.remaining_start().or_else(expected).map_or(RETRY_NO_ENDPOINTS, whole_seconds)
}

fn whole_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    u32::try_from(seconds).unwrap_or(LONGEST_RETRY).clamp(1, LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_rounded_up_and_bounded() {
        for (remaining, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (42_500, 43), (600_000, 600), (u64::MAX, 600)] {
            assert_eq!(whole_seconds(Duration::from_millis(remaining)), seconds, "{remaining} ms");
        }
    }
}
