//! `fcfs-ordering-policy`

use super::Deadline;

/// The number of the request alone decides.
pub(super) fn deadline() -> Deadline {
    Deadline::Never
}
