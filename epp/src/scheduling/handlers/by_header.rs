//! `header-profile-handler`

use std::sync::Arc;

use super::{Placement, ProfileHandler, Runs, Unplaced};
use crate::inference::Code;

/// Runs the profile that a header names; the default one where it is not there. The only profile runs whatever the header says.
#[derive(Clone, Debug)]
pub struct HeaderProfileHandler {
    /// The header, in lower case.
    pub header: Arc<str>,
    /// Names of the profiles, in their order.
    pub profiles: Vec<Arc<str>>,
    /// Position of the profile that runs without the header; none: such a request is refused.
    pub default: Option<usize>,
}

impl ProfileHandler for HeaderProfileHandler {
    fn schedule<'a>(&self, runs: &mut Runs<'_, 'a>) -> Result<Placement<'a>, Unplaced> {
        let named = runs.request().request.header(&self.header);
        let position = match named {
            _ if self.profiles.len() == 1 => Some(0),
            None => self.default,
            Some(named) => self.profiles.iter().position(|profile| **profile == *named),
        };
        if let Some(position) = position {
            return runs.run_alone(position);
        }
        let (header, known) = (&self.header, self.profiles.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "));
        let message = match named {
            Some(_) => format!("no scheduling profile is called as the header {header} says: there are {known}"),
            None => format!("the header {header} has to name a scheduling profile: there are {known}"),
        };
        Err(Unplaced { code: Code::BadRequest, message })
    }
}
