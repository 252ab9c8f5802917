//! One HTTP request as a gateway tells of it over ext_proc: messages in, actions out, no I/O.
//!
//! A gateway opens a stream per request, sends the head and the body, and waits. [`Exchange`] follows it: it collects what must be
//! read ([`crate::request`]), asks for a pick, answers in the shape the gateway's mode wants, then follows the response
//! ([`crate::response`]) until it has ended. Gateways differ (which half-close means what, where the end of a body is told, in which
//! field a header's value lies); every difference is met here and nowhere else.
//!
//! Who drives it hands in each [`Incoming`] message, the director's answer, and the end of the stream, and carries out the [`Action`]s.

mod message;
mod settings;

mod budget;
mod machine;
mod refusal;
mod request_side;
mod response_side;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use machine::{Closed, Exchange};
pub use message::{
    Action, BodyReply, Chunk, Content, Head, HeadReply, Immediate, Incoming, Message, Note, PickMetadata, Reply, Served,
};
pub use settings::{BodyMode, ErrorPrefix, Modes, SettingError, Settings};
