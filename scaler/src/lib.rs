//! What weir writes to a cluster on what its pools report. Each part has its own identity, and is off unless installed.
//!
//! - [`zero`]: idle pools go to zero replicas, and a held request brings them back.
//! - [`deletion_cost`]: which pod of a ReplicaSet goes first when there are to be fewer.

pub mod deletion_cost;
pub mod zero;
