//! How a gateway sends bodies.

/// How a gateway sends a body (`BodySendMode` of ext_proc's processing mode).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum BodyMode {
    /// Not at all.
    None,
    /// Piece by piece, each waiting for its reply; the head has gone on before.
    Streamed,
    /// Whole, once its head was answered.
    Buffered,
    /// As much as fits, once its head was answered; the rest is not shown.
    BufferedPartial,
    /// Both directions independently (`FULL_DUPLEX_STREAMED`): what is sent on is what the replies say.
    #[default]
    FullDuplex,
}

/// The modes of both bodies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Modes {
    /// Of requests' bodies.
    pub request: BodyMode,
    /// Of responses' bodies.
    pub response: BodyMode,
}
