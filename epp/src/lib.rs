//! The endpoint picker: ext_proc frontend and standalone frontend, request reading, scheduling, flow control.

mod conversation;
pub mod director;
pub mod exchange;
pub mod flow;
pub mod frontend;
mod inference;
pub mod journal;
pub mod metrics;
pub mod request;
pub mod resources;
pub mod response;
pub mod scheduling;
pub mod standalone;

pub use inference::{Api, Code, Director, Failure, InferenceRequest, NamedValue, NoTicket, Pick, Refusal, Subset, Ticket, Usage};
