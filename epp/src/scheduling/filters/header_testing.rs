//! `header-based-testing-filter`

use std::net::{IpAddr, SocketAddr};

use rand::Rng;

use crate::scheduling::{Candidate, Filter, SchedulingRequest};

/// Addresses that are looked at, of a header that anybody may send.
const MOST_ADDRESSES: usize = 256;

/// Leaves the endpoints that the header `test-epp-endpoint-selection` names, in its order: a comma list of `ip` (every rank) or
/// `ip:port`. Without the header none is left. For conformance tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderTestingFilter;

impl Filter for HeaderTestingFilter {
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        let mut named = Vec::new();
        for part in request.request.test_selection.as_deref().unwrap_or_default().split(',').take(MOST_ADDRESSES) {
            let part = part.trim();
            let (ip, port) = match (part.parse::<SocketAddr>(), part.trim_matches(['[', ']']).parse::<IpAddr>()) {
                (Ok(address), _) => (address.ip(), Some(address.port())),
                (_, Ok(ip)) => (ip, None),
                _ => continue,
            };
            while let Some(position) =
                candidates.iter().position(|one| one.address.ip() == ip && port.is_none_or(|port| port == one.address.port()))
            {
                named.push(candidates.remove(position));
            }
        }
        *candidates = named;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Asked, Loads};

    fn left(selection: Option<&str>) -> Vec<usize> {
        let mut asked = Asked::default();
        asked.request.test_selection = selection.map(Into::into);
        asked.left(&HeaderTestingFilter, &Loads::waiting(&[0.0, 0.0, 0.0]))
    }

    #[test]
    fn the_named_are_left_in_the_headers_order() {
        assert_eq!(left(Some("10.0.0.3, 10.0.0.1:8000,10.0.0.3,junk,10.0.0.9")), [2, 0]);
        assert_eq!(left(Some("10.0.0.1:8001")), [0_usize; 0]);
        assert_eq!(left(Some("  ")), [0_usize; 0]);
        assert_eq!(left(None), [0_usize; 0]);
    }
}
