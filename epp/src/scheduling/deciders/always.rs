//! `always-disagg-pd-decider`

use crate::scheduling::{Candidate, Decider, SchedulingRequest};

/// Whatever the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysDecider;

impl Decider for AlwaysDecider {
    fn disaggregates(&self, _request: &SchedulingRequest<'_>, _decode: Option<&Candidate<'_>>) -> bool {
        true
    }
}
