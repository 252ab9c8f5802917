//! Reading an exposition page: bytes in, the wanted [`Sample`]s out.
//!
//! A model server's page is 20 to 180 KB and is read every second or more often, while the signals on it that matter are a dozen
//! lines. So the page is scanned, not parsed: [`scan`] walks the lines, looks each name up among the [`Wanted`] ones and takes only
//! those lines apart. A broken line costs that line, never the page; what says that the page itself cannot be trusted (cut off, not
//! a metrics page) is a [`PageError`].
//!
//! Source of the rules: the Prometheus text exposition format 0.0.4 and OpenMetrics 1.0, and what the servers really send.

mod line;
mod scan;
mod wanted;

pub use line::{DropReason, Labels, Sample};
pub use scan::{Dropped, Effort, Format, PageError, PageReport, ScanLimits, scan};
pub use wanted::{FamilyIndex, Wanted};

#[cfg(test)]
mod tests;
