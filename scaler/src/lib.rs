//! temp
pub mod policy;
