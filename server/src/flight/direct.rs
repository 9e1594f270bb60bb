//! DoGet without tonic's codec: the response body hands column buffers to HTTP/2 as they lie in memory.
//!
//! Everything else goes to the ordinary service; so does a DoGet whose request is compressed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::service::TriremeService;
use super::stream::{BatchResults, to_status};
use super::wire::MessageEncoder;

const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
/// Tickets are small; more is no ticket of ours.
const TICKET_BYTES_MAX: usize = 1 << 20;
const GRPC_PREFIX_BYTES: usize = 5;
/// Trailer with the reason why a part of the query ran elsewhere than it was placed; once for each.
const FALLBACK_HEADER: &str = "x-trireme-fallback";
const FALLBACKS_MAX: usize = 4;
const FALLBACK_CHARACTERS_MAX: usize = 300;

/// The ordinary service with the short way for DoGet before it.
#[derive(Clone)]
pub struct DirectService {
    inner: FlightServiceServer<TriremeService>,
    service: TriremeService,
}

impl DirectService {
    /// Wraps the service.
    pub fn new(inner: FlightServiceServer<TriremeService>, service: TriremeService) -> Self {
        Self { inner, service }
    }
}

impl NamedService for DirectService {
    const NAME: &'static str = <FlightServiceServer<TriremeService> as NamedService>::NAME;
}

impl Service<Request<Body>> for DirectService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let compressed = request
            .headers()
            .get("grpc-encoding")
            .is_some_and(|encoding| encoding != "identity");
        if request.uri().path() != DO_GET || compressed {
            return Box::pin(self.inner.call(request));
        }
        let service = self.service.clone();
        Box::pin(async move {
            let answered = match ticket(request).await {
                Ok(request) => service.batches(request).await.and_then(respond),
                Err(refused) => Err(refused),
            };
            Ok(answered.unwrap_or_else(|refused| refused.into_http()))
        })
    }
}

/// The one message of the request.
async fn ticket(request: Request<Body>) -> Result<tonic::Request<Ticket>, Status> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, TICKET_BYTES_MAX).collect().await;
    let mut bytes = body
        .map_err(|error| Status::invalid_argument(format!("the ticket can't be read\ndetail: {error}")))?
        .to_bytes();
    if bytes.len() < GRPC_PREFIX_BYTES || bytes[0] != 0 {
        return Err(Status::invalid_argument("the request holds no ticket"));
    }
    bytes.advance(GRPC_PREFIX_BYTES);
    let ticket = Ticket::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("the ticket can't be read\ndetail: {error}")))?;
    Ok(tonic::Request::from_http(Request::from_parts(parts, ticket)))
}

fn respond(results: BatchResults) -> Result<Response<Body>, Status> {
    let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let (encoder, schema) =
        MessageEncoder::new(&results.schema, results.batch_bytes_max).map_err(|error| internal(&error))?;
    results.metrics.bytes_sent_total.inc_by(schema.len() as u64);
    let pieces = schema.into_grpc().map_err(|error| internal(&error))?.into();
    let mut response = Response::new(Body::new(GetBody {
        encoder,
        results,
        pieces,
        ended: false,
    }));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// A trailer can hold no other characters, and clients take only so many bytes of them.
fn plain(reason: &str) -> String {
    let character = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
    reason.chars().take(FALLBACK_CHARACTERS_MAX).map(character).collect()
}

/// The response's body: pieces of messages, then the status as trailers.
struct GetBody {
    encoder: MessageEncoder,
    results: BatchResults,
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl GetBody {
    fn encode(&mut self, batch: &arrow::array::RecordBatch) -> Result<(), Status> {
        let messages = self
            .encoder
            .encode(batch)
            .map_err(|error| Status::internal(error.to_string()))?;
        for message in messages {
            self.results.metrics.bytes_sent_total.inc_by(message.len() as u64);
            self.pieces.extend(
                message
                    .into_grpc()
                    .map_err(|error| Status::internal(error.to_string()))?,
            );
        }
        Ok(())
    }

    fn trailers(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let mut headers = HeaderMap::new();
        if status.add_header(&mut headers).is_err() {
            headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
        }
        for reason in self.results.fallbacks.lock().iter().take(FALLBACKS_MAX) {
            if let Ok(value) = HeaderValue::try_from(plain(reason)) {
                headers.append(FALLBACK_HEADER, value);
            }
        }
        Frame::trailers(headers)
    }
}

impl http_body::Body for GetBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let failed = match this.results.batches.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(batch))) => this.encode(&batch).err(),
                Poll::Ready(Some(Err(error))) => Some(to_status(error)),
                Poll::Ready(None) => Some(Status::ok("")),
            };
            if let Some(status) = failed {
                let frame = this.trailers(&status);
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.pieces.is_empty()
    }
}
