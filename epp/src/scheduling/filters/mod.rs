//! Filters, one file each.

mod by_label;
mod header_testing;
mod prefix_affinity;
mod saturated;
mod session_affinity;
mod topology;
mod utilization;

pub use by_label::{ByLabelFilter, LabelTest};
pub use header_testing::HeaderTestingFilter;
pub use prefix_affinity::{PrefixAffinityFilter, TtftSource};
pub use saturated::SaturatedFilter;
pub use session_affinity::SessionAffinityFilter;
pub use topology::TopologyFilter;
pub use utilization::{Signal, UtilizationFilter};
