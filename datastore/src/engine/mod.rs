//! Engines: which families of a page mean what, and how a page becomes one [`EndpointLoad`](crate::EndpointLoad).
//!
//! [`families`] is the table of names per engine, [`PageReader`] reads pages by it: scan, choose the engine, settle each series
//! (first of equals, newest name of a renamed pair, valid values only), combine by meaning.

mod combine;
mod families;
mod lora;
mod memory;
mod reader;
mod reading;

pub use families::{CustomFamily, Engine, FamilySpec, Several, Signal, families};
pub use memory::PageMemory;
pub use reader::PageReader;
pub use reading::{PageClock, ReadError, Reading, SeriesUse, SeriesVerdict};

#[cfg(test)]
mod tests;
