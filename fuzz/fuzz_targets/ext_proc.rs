//! The ext_proc service under any bytes as the body of a call: no panic; a status at the end, or replies that can be decoded.

#![no_main]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use http::Request;
use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use rand::{SeedableRng, rngs::StdRng};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use weir_epp::exchange::Settings;
use weir_epp::frontend::Frontend;
use weir_epp::request::{Parser, Parsers};
use weir_epp::{Director, InferenceRequest, NoTicket, Pick, Refusal};
use weir_serving::Health;

/// Picks at once, the model that is asked for by header.
struct First;

impl Director for First {
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        let endpoints = vec![([10, 0, 0, 1], 8000).into()];
        Box::pin(async move { Ok(Pick {
            endpoints,
            target_model: request.model_rewrite,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            ticket: Box::new(NoTicket),
        }) })
    }

    fn refused(&self, _model: Option<&str>, _refusal: &Refusal) {}

    fn ready(&self) -> bool {
        true
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

static PICKER: LazyLock<Router> = LazyLock::new(|| {
    let settings = Settings { parsers: Parsers::of(Parser::ALL), served_verifier: true, ..Settings::default() };
    let (random, leaving) = (StdRng::seed_from_u64(1), CancellationToken::new());
    let frontend = Frontend::new(Arc::new(First), settings, random, Health::new(), leaving, &mut Registry::default());
    frontend.expect("sound settings").router()
});

fuzz_target!(|input: &[u8]| {
    let request = Request::post("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = request.body(Body::from(input.to_vec())).expect("a request");
    let answer = RUNTIME.block_on(async {
        let response = PICKER.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        to_bytes(response.into_body(), 1 << 20).await.expect("a body that ends")
    });
    let mut rest = &answer[..];
    while let [flag, a, b, c, d, more @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        assert!(*flag == 0 && length <= more.len(), "half a frame");
        rest = &more[length..];
    }
    assert!(rest.is_empty());
});
