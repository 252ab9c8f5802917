//! Serves one file at every path, read anew for each request: the page of a picker or server whose values a test sets.
//!
//!     page-server ADDRESS FILE

use axum::Router;
use axum::http::StatusCode;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [address, file] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("ADDRESS and FILE are given");
    let answer = move || {
        let page = std::fs::read_to_string(&file).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{file}: {error}")));
        std::future::ready(page)
    };
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address is free");
    axum::serve(listener, Router::new().fallback(answer)).await.expect("a server serves");
}
