//! `priority-holdback-policy`

/// Ceilings that fall evenly from the highest band to the lowest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdback {
    /// By what they fall.
    pub domain: HoldbackDomain,
    /// Of the lowest band.
    pub lowest: f64,
    /// Of the highest band, and where there is one alone.
    pub highest: f64,
}

/// What spreads the ceilings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HoldbackDomain {
    /// The order of the priorities.
    #[default]
    Rank,
    /// Their values.
    Value,
}

impl Holdback {
    pub(super) fn ceiling(self, position: usize, priorities: &[i32]) -> f64 {
        let (Some(first), Some(last), Some(own)) = (priorities.first(), priorities.last(), priorities.get(position)) else {
            return self.highest;
        };
        if first == last {
            return self.highest;
        }
        let below = match self.domain {
            HoldbackDomain::Rank => position as f64 / (priorities.len() - 1) as f64,
            HoldbackDomain::Value => (f64::from(*first) - f64::from(*own)) / (f64::from(*first) - f64::from(*last)),
        };
        self.highest - below * (self.highest - self.lowest)
    }
}
