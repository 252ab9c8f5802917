//! A response's body in pieces: whatever the bytes and the cuts, no panic; the bytes pass whole, and where they are cut changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_epp::request::Method;
use weir_epp::response::{Framing, ModelBack, ResponseBody};
use weir_epp::{Api, Usage};

const FRAMINGS: [Framing; 6] = [
    Framing::Document,
    Framing::Events,
    Framing::Opaque,
    Framing::Frames(Method::Generate),
    Framing::Frames(Method::Embed),
    Framing::Frames(Method::Vertex(Api::Responses)),
];

fn through<'a>(framing: Framing, back: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Usage>) {
    let mut body = ResponseBody::new(framing, back.then(|| ModelBack::new("m".into(), "other \"name\"")));
    let mut out = Vec::new();
    for piece in pieces {
        out.append(&mut body.pass(piece.to_vec()));
    }
    out.append(&mut body.rest());
    (out, body.usage())
}

fuzz_target!(|input: &[u8]| {
    let [framing, size, bytes @ ..] = input else { return };
    let framing = FRAMINGS[usize::from(*framing) % FRAMINGS.len()];
    let size = usize::from(*size).max(1);
    let whole = through(framing, false, [bytes].into_iter());
    assert_eq!(whole.0, bytes);
    assert_eq!(through(framing, false, bytes.chunks(size)), whole);
    let put_back = through(framing, true, [bytes].into_iter());
    assert_eq!(through(framing, true, bytes.chunks(size)), put_back);
    assert_eq!(put_back.1, whole.1);
});
