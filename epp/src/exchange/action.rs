//! What is to be done for an exchange, and what of it is worth a count.

use std::sync::Arc;

use weir_ext_proc::Reply;

use crate::{InferenceRequest, Refusal};

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Send this to the gateway.
    Reply(Reply),
    /// Ask the director; its answer goes to [`super::Exchange::directed`].
    Direct(Box<InferenceRequest>),
    /// Give up what was asked of the director.
    Abandon,
    /// Tell the director of a request refused before it.
    Refused {
        /// The model, where it could be read.
        model: Option<Arc<str>>,
        /// Why.
        refusal: Refusal,
    },
    /// Count this.
    Note(Note),
    /// End the stream, with status OK.
    End,
}

/// What is worth a count: the gateway or the request is not as it should be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Note {
    /// A message that does not belong here, passed over or answered without effect.
    Unexpected,
    /// Another endpoint served than any that was picked: the gateway does not follow, or calls the wrong picker.
    ServedElsewhere,
    /// The served endpoint's name is no address.
    ServedUnreadable,
    /// The client or the gateway was gone before the pick.
    GoneBeforePick,
    /// Gone between pick and response.
    GoneBeforeResponse,
    /// Gone within the response.
    GoneInResponse,
    /// The gateway answered by itself while the request waited: a time limit of its own.
    GatewayGaveUp,
    /// The body should have named another model, and had gone on already: the gateway's mode does not allow it.
    ModelNotRewritten,
    /// The director gave an empty pick or failed.
    DirectorFailed,
    /// A stream more than may be open.
    TooManyStreams,
    /// Nothing was said for so long after a pick that the request no longer counts as in flight.
    Silent,
}

impl Note {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Unexpected,
        Self::ServedElsewhere,
        Self::ServedUnreadable,
        Self::GoneBeforePick,
        Self::GoneBeforeResponse,
        Self::GoneInResponse,
        Self::GatewayGaveUp,
        Self::ModelNotRewritten,
        Self::DirectorFailed,
        Self::TooManyStreams,
        Self::Silent,
    ];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected_message",
            Self::ServedElsewhere => "served_elsewhere",
            Self::ServedUnreadable => "served_unreadable",
            Self::GoneBeforePick => "gone_before_pick",
            Self::GoneBeforeResponse => "gone_before_response",
            Self::GoneInResponse => "gone_in_response",
            Self::GatewayGaveUp => "gateway_gave_up",
            Self::ModelNotRewritten => "model_not_rewritten",
            Self::DirectorFailed => "director_failed",
            Self::TooManyStreams => "too_many_streams",
            Self::Silent => "silent",
        }
    }
}
