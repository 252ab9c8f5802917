//! Admitters, one file each.

mod probabilistic;

pub use probabilistic::ProbabilisticAdmitter;
