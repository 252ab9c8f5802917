//! One HTTP request as a gateway tells of it over ext_proc: messages in, actions out, no I/O.
//!
//! A gateway opens a stream per request, sends the head and the body, and waits. [`Exchange`] follows it: it collects what must be
//! read ([`crate::request`]), asks for a pick, answers in the shape the gateway's mode wants, then follows the response
//! ([`crate::response`]) until it has ended. Gateways differ (which half-close means what, where the end of a body is told, in which
//! field a header's value lies); every difference is met here and nowhere else.
//!
//! Who drives it hands in each [`Incoming`] message, the director's answer, and the end of the stream, and carries out the [`Action`]s.

mod action;
mod settings;

mod machine;
mod request_side;
mod response_side;

#[cfg(test)]
mod tests;

pub use action::{Action, Note};
pub use machine::{Closed, Exchange};
pub use settings::{SettingError, Settings};
pub use weir_ext_proc::{
    BodyMode, BodyReply, Budget, Chunk, Content, ErrorPrefix, Head, HeadReply, Immediate, Incoming, Message, Modes, PickMetadata,
    Reply, Served,
};
