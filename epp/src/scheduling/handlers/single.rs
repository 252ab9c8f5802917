//! `single-profile-handler`

use super::{Placement, ProfileHandler, Runs, Unplaced};

/// Runs the only profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProfileHandler;

impl ProfileHandler for SingleProfileHandler {
    fn schedule<'a>(&self, runs: &mut Runs<'_, 'a>) -> Result<Placement<'a>, Unplaced> {
        runs.run_alone(0)
    }
}
