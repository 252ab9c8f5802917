//! Up to which saturation a band is served.

mod holdback;
mod soft_reflective;

pub use holdback::{Holdback, HoldbackDomain};

/// A usage limit policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UsageLimit {
    /// `static-usage-limit-policy`: every band up to this.
    Static(f64),
    /// `priority-holdback-policy`: lower bands up to less.
    Holdback(Holdback),
    /// `soft-reflective-ceiling-policy`: lower bands the more seldom, the fuller the pool is.
    SoftReflective,
}

impl Default for UsageLimit {
    fn default() -> Self {
        Self::Static(1.0)
    }
}

impl UsageLimit {
    /// As it is configured.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Static(_) => "static-usage-limit-policy",
            Self::Holdback(_) => "priority-holdback-policy",
            Self::SoftReflective => "soft-reflective-ceiling-policy",
        }
    }

    /// Below which saturation the band at `position` of `priorities`, the highest first, is served. `turn` counts the questions.
    pub(crate) fn ceiling(self, position: usize, priorities: &[i32], saturation: f64, turn: u64) -> f64 {
        match self {
            Self::Static(threshold) => threshold,
            Self::Holdback(holdback) => holdback.ceiling(position, priorities),
            Self::SoftReflective => soft_reflective::ceiling(position, priorities.len(), saturation, turn),
        }
    }
}
