//! A gateway that says anything in any order: no panic, nothing after the end, one reply to the head at most, memory within the
//! budget; a body that is not rewritten goes on byte for byte.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tokio::time::Instant;
use weir_epp::exchange::{
    Action, BodyMode, Budget, Chunk, Closed, Content, Exchange, Head, Incoming, Message, Modes, Reply, Served, Settings,
};
use weir_epp::request::{Parser, Parsers};
use weir_epp::{NoTicket, Pick};

const MOST: usize = 3000;
const MODES: [BodyMode; 5] =
    [BodyMode::None, BodyMode::Streamed, BodyMode::Buffered, BodyMode::BufferedPartial, BodyMode::FullDuplex];
const NAMES: [&str; 10] = [
    ":method", ":path", ":status", "content-type", "upgrade", "x-request-id", "x-gateway-inference-objective", "content-encoding",
    "x-forwarded-path", "X-LLM-D-Model-Name-Rewrite",
];
const VALUES: [&str; 12] = [
    "POST", "/v1/completions", "/v1/messages", "/vllm.grpc.engine.VllmEngine/Generate", "/x", "200", "101", "503",
    "text/event-stream", "application/json", "application/grpc", "gzip",
];

/// What the input says, byte by byte; zeros after its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(usize::from(self.byte()).min(self.0.len()));
        let bytes = bytes.to_vec();
        self.0 = rest;
        bytes
    }

    fn head(&mut self) -> Head {
        let count = self.byte() % 6;
        let headers = (0..count).map(|_| {
            let name = NAMES[usize::from(self.byte()) % NAMES.len()].to_owned();
            let value = match usize::from(self.byte()) {
                known if known < VALUES.len() => VALUES[known].into(),
                _ => self.bytes(),
            };
            (name, value)
        });
        let headers = headers.collect();
        Head { headers, end: self.byte() & 1 == 1 }
    }

    fn chunk(&mut self) -> Chunk {
        let body = match self.byte() % 4 {
            0 => br#"{"model":"llama","prompt":"hi","stream":true}"#.to_vec(),
            1 => b"\0\0\0\0\x04\x1a\x02hi".to_vec(),
            _ => self.bytes(),
        };
        Chunk { body, end: self.byte() & 1 == 1 }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let choice = script.byte();
    let settings = Settings {
        request_bytes: MOST,
        waiting_bytes: MOST,
        reply_chunk: 100,
        ask_for_bodies: choice & 1 == 1,
        unknown_as_completions: choice & 2 == 2,
        parsers: if choice & 4 == 4 { Parsers::of(Parser::ALL) } else { Parsers::default() },
        served_verifier: choice & 8 == 8,
        ..Settings::default()
    };
    let told = (choice & 16 == 16).then(|| {
        let mut mode = || MODES[usize::from(script.byte()) % MODES.len()];
        Modes { request: mode(), response: mode() }
    });
    let duplex = told.is_none_or(|modes| modes.request == BodyMode::FullDuplex);
    let budget = Budget::new(MOST);
    let mut exchange = Exchange::new(Arc::new(settings), &budget, 7);
    let now = Instant::now();
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    let (mut heads, mut refusals, mut ended, mut asked, mut rewritten) = (0, 0, false, false, false);
    while !script.0.is_empty() {
        let mut out = Vec::new();
        let message = match script.byte() % 12 {
            0 => Some(Message::RequestHeaders(script.head())),
            1..=3 => Some(Message::RequestBody(script.chunk())),
            4 => Some(Message::RequestTrailers),
            5 => Some(Message::ResponseHeaders(script.head())),
            6 => Some(Message::ResponseBody(script.chunk())),
            7 => Some(Message::ResponseTrailers),
            8 => {
                let how = [Closed::HalfClosed, Closed::Reset, Closed::Oversized][usize::from(script.byte()) % 3];
                exchange.closed(how, now, &mut out);
                None
            }
            9 => {
                exchange.silent(&mut out);
                None
            }
            _ if asked => {
                asked = false;
                let target_model = (script.byte() & 1 == 1).then(|| "target".into());
                rewritten |= target_model.is_some();
                let endpoints = vec![([10, 0, 0, 1], 8000).into()];
                exchange.directed(Ok(Pick { endpoints, target_model, request_headers: Vec::new(), response_headers: Vec::new(), ticket: Box::new(NoTicket) }), &mut out);
                None
            }
            _ => None,
        };
        if let Some(message) = message {
            if let Message::RequestBody(chunk) = &message {
                sent.extend_from_slice(&chunk.body);
            }
            let served = if script.byte() == 1 { Served::By("10.0.0.1:8000".into()) } else { Served::NoMetadata };
            let incoming = Incoming { message: Some(message), modes: told, served, ..Incoming::default() };
            exchange.message(incoming, now, &mut out);
        }
        assert!(!ended || out.is_empty(), "it speaks after its end: {out:?}");
        for action in out {
            match action {
                Action::Reply(Reply::RequestHeaders(_)) => heads += 1,
                Action::Reply(Reply::Immediate(_)) => refusals += 1,
                Action::Reply(Reply::RequestBody(reply)) => match reply.content {
                    Content::Streamed { body, .. } => received.extend_from_slice(&body),
                    Content::Unchanged | Content::Replaced(_) => {}
                },
                Action::Direct(_) => asked = true,
                Action::Abandon => asked = false,
                Action::End => ended = true,
                _ => {}
            }
        }
        assert!(heads <= 1 && refusals <= 1);
        assert!(budget.used() <= MOST);
        // What was told to go on is the beginning of what came.
        assert!(!duplex || rewritten || sent.starts_with(&received), "{received:?} of {sent:?}");
    }
    drop(exchange);
    assert_eq!(budget.used(), 0);
});
