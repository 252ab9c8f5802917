//! `data-parallel-profile-handler`

use super::{Placement, ProfileHandler, Runs, Unplaced};

/// The header that tells the server's sidecar which rank is meant.
pub(super) const RANK: &str = "x-data-parallel-host-port";

/// Runs the only profile, and sends the request to one port of the chosen pod for all its ranks: a header says which is meant.
#[derive(Clone, Copy, Debug)]
pub struct DataParallelProfileHandler {
    /// The port that takes the requests of all ranks; none: each rank's own, as the header has it.
    pub port: Option<u16>,
}

impl ProfileHandler for DataParallelProfileHandler {
    fn schedule<'a>(&self, runs: &mut Runs<'_, 'a>) -> Result<Placement<'a>, Unplaced> {
        let mut placement = runs.run_alone(0)?;
        to_port(&mut placement, self.port);
        Ok(placement)
    }
}

/// Sends the request to `port`, and says in a header which rank is meant.
pub(super) fn to_port(placement: &mut Placement<'_>, port: Option<u16>) {
    let rank = placement.primary.endpoints.first().map(|first| first.address.to_string());
    placement.headers.push((RANK, rank));
    placement.port = port;
}
