//! What weir writes to a cluster on what its pools report. Each part has its own identity, and is off unless installed.
//!
//! [`deletion_cost`]: which pod of a ReplicaSet goes first when there are to be fewer.

pub mod deletion_cost;
