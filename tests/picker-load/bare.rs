//! The bare server: tonic as it comes, the same messages, nothing decided. What it costs is the transport's.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, ProcessingRequest, ProcessingResponse,
    StreamedBodyResponse, body_mutation::Mutation, processing_request::Request as Said, processing_response::Response as Reply,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::net::TcpStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

struct Bare {
    destination: Arc<str>,
}

struct Session {
    inbound: Streaming<ProcessingRequest>,
    destination: Arc<str>,
    held: Vec<Vec<u8>>,
    replies: VecDeque<Reply>,
    metadata: Option<Struct>,
}

#[tonic::async_trait]
impl ExternalProcessor for Bare {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(&self, request: Request<Streaming<ProcessingRequest>>) -> Result<Response<Self::ProcessStream>, Status> {
        let session = Session {
            inbound: request.into_inner(),
            destination: self.destination.clone(),
            held: Vec::new(),
            replies: VecDeque::new(),
            metadata: None,
        };
        Ok(Response::new(Box::pin(unfold(session, |mut session| async move {
            let reply = session.next().await?;
            Some((Ok(reply), session))
        }))))
    }
}

impl Session {
    async fn next(&mut self) -> Option<ProcessingResponse> {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                let dynamic_metadata = self.metadata.take();
                return Some(ProcessingResponse { response: Some(reply), dynamic_metadata, ..ProcessingResponse::default() });
            }
            match self.inbound.message().await.ok()??.request? {
                Said::RequestBody(HttpBody { body, end_of_stream, .. }) => self.request_body(body, end_of_stream),
                Said::ResponseHeaders(_) => {
                    self.replies.push_back(Reply::ResponseHeaders(head("x-went-into-resp-headers", "true", false)));
                }
                Said::ResponseBody(HttpBody { body, end_of_stream, .. }) => {
                    self.replies.push_back(Reply::ResponseBody(streamed(body, end_of_stream)));
                }
                Said::RequestHeaders(_) | Said::RequestTrailers(_) | Said::ResponseTrailers(_) => {}
            }
        }
    }

    fn request_body(&mut self, body: Vec<u8>, end: bool) {
        if !body.is_empty() || (end && self.held.is_empty()) {
            self.held.push(body);
        }
        if end {
            const DESTINATION: &str = "x-gateway-destination-endpoint";
            let text = Value { kind: Some(Kind::StringValue(self.destination.to_string())) };
            let inner = Struct { fields: [(DESTINATION.to_owned(), text)].into() };
            let metadata = [("envoy.lb".to_owned(), Value { kind: Some(Kind::StructValue(inner)) })].into();
            self.metadata = Some(Struct { fields: metadata });
            self.replies.push_back(Reply::RequestHeaders(head(DESTINATION, &self.destination, true)));
            let last = self.held.len() - 1;
            let pieces = self.held.drain(..).enumerate().map(|(at, piece)| Reply::RequestBody(streamed(piece, at == last)));
            self.replies.extend(pieces);
        }
    }
}

fn head(key: &str, value: &str, clear_route_cache: bool) -> HeadersResponse {
    let header = HeaderValue { key: key.to_owned(), raw_value: value.as_bytes().to_vec(), ..HeaderValue::default() };
    let set = HeaderValueOption { header: Some(header), append_action: 2, ..HeaderValueOption::default() };
    let mutation = HeaderMutation { set_headers: vec![set], remove_headers: Vec::new() };
    let response = CommonResponse { header_mutation: Some(mutation), clear_route_cache, ..CommonResponse::default() };
    HeadersResponse { response: Some(response) }
}

fn streamed(body: Vec<u8>, end_of_stream: bool) -> BodyResponse {
    let piece = StreamedBodyResponse { body, end_of_stream, ..StreamedBodyResponse::default() };
    let body_mutation = Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) });
    BodyResponse { response: Some(CommonResponse { body_mutation, ..CommonResponse::default() }) }
}

/// Serves until the process is ended. `certificate`: a directory with `tls.crt` and `tls.key`.
pub(crate) fn serve(destination: &str, certificate: Option<&Path>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("bare server ext_proc={}", listener.local_addr()?);
        let server = Server::builder().add_service(ExternalProcessorServer::new(Bare { destination: destination.into() }));
        match certificate {
            None => server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await?,
            Some(directory) => {
                let acceptor = crate::tls::acceptor(directory)?;
                let accepted = unfold((listener, acceptor), |(listener, acceptor)| async move {
                    let stream = accept(&listener, &acceptor).await;
                    Some((stream, (listener, acceptor)))
                });
                server.serve_with_incoming(accepted).await?;
            }
        }
        Ok(())
    })
}

async fn accept(listener: &tokio::net::TcpListener, acceptor: &tokio_rustls::TlsAcceptor) -> std::io::Result<Tls> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(Tls(acceptor.accept(stream).await?))
}

/// A connection that tells tonic nothing about itself.
struct Tls(tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
