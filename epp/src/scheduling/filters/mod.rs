//! Filters, one file each.

mod header_testing;
mod saturated;

pub use header_testing::HeaderTestingFilter;
pub use saturated::SaturatedFilter;
