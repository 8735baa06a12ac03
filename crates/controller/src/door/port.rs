//! The port of requests that are signed: the Query protocols of AWS's tools, and gRPC with tokens. Both come over TLS; in plain
//! text from this machine alone, unless the operator says that something in front of it ends TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_api::{ApiError, ErrorCode};
use hearth_ec2::face::Face;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::accept::Signer;
use super::bearer;
use super::calls::REQUEST_ID;
use super::connection::Protocol;
use super::words;
use crate::call::{Endpoint, Origin, new_request_id};
use crate::credentials::{AccessKeys, KnownRegions};

/// Bytes of a Query request's body. The largest parameters, user data and keys, are far smaller.
const MAX_BODY: usize = 1 << 20;
/// Of a request's head; libcloud's parameters are in it.
const MAX_HEAD: usize = 64 << 10;
/// How long a Query request's body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or a request's head take to arrive.
const IDLE: Duration = Duration::from_secs(60);
const PLAIN: &str = "Over a network this port is served by https alone: begin its URL with https.";

/// The services behind the port.
pub type Services = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What answers on the port.
pub struct Port {
    pub face: Face<Services, AccessKeys, KnownRegions>,
    pub grpc: Services,
    pub keys: AccessKeys,
    /// Whether requests in plain text are answered to other machines, too.
    pub plain_from_afar: bool,
}

/// How HTTP/2 is served.
#[derive(Debug, Clone, Copy)]
pub struct Http2 {
    /// Calls at the same time on one connection.
    pub streams: u32,
    pub keepalive: Duration,
    pub keepalive_timeout: Duration,
}

/// Serves connections until `ending`.
pub async fn serve(
    mut signers: mpsc::Receiver<Signer>,
    port: Arc<Port>,
    http2: Http2,
    ending: CancellationToken,
) {
    loop {
        tokio::select! {
            signer = signers.recv() => match signer {
                Some(signer) => drop(tokio::spawn(connection(signer, Arc::clone(&port), http2, ending.clone()))),
                None => return,
            },
            () = ending.cancelled() => return,
        }
    }
}

/// Serves a connection until it ends, its place is needed, or the process ends.
async fn connection(signer: Signer, port: Arc<Port>, limits: Http2, ending: CancellationToken) {
    let address = signer.address;
    let origin = Origin {
        address: address.ip().to_canonical(),
        is_secure: signer.is_secure,
    };
    let serve = service_fn(move |request| {
        let port = Arc::clone(&port);
        async move { Ok::<_, Infallible>(port.answer(origin, address, request).await) }.boxed()
    });
    let stream = TokioIo::new(signer.connection);
    let ended = match signer.speaks {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .max_buf_size(MAX_HEAD)
                .serve_connection(stream, serve);
            until(connection, ending).await
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(limits.keepalive)
                .keep_alive_timeout(limits.keepalive_timeout)
                .max_concurrent_streams(limits.streams)
                .max_header_list_size(MAX_HEAD as u32)
                .serve_connection(stream, serve);
            until(connection, ending).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %address, "a connection ended");
    }
}

/// Runs a connection; when the process ends, to the end of the calls that it has.
fn until<C>(connection: C, ending: CancellationToken) -> BoxFuture<'static, Result<(), C::Error>>
where
    C: GracefulConnection<Error: Send> + Send + 'static,
{
    let run = async move {
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending.cancelled_owned() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    run.boxed()
}

impl Port {
    async fn answer(
        &self,
        origin: Origin,
        address: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let request_id = new_request_id();
        let is_grpc = request.version() == Version::HTTP_2 && is_grpc(&request);
        let may_come = origin.is_secure || origin.address.is_loopback() || self.plain_from_afar;
        let endpoint = Endpoint::of(&request, origin);
        let path = request.uri().path().to_owned();
        request.extensions_mut().insert(origin);
        if let Some(endpoint) = endpoint {
            request.extensions_mut().insert(endpoint);
        }
        let response = match (may_come, is_grpc) {
            (true, true) => {
                match bearer::signer(request.headers_mut(), &self.keys, crate::store::now() / 1000) {
                    Ok(signer) => {
                        request.extensions_mut().insert(signer);
                        self.grpc(request).await
                    }
                    Err(error) => refuse(error, address, &request_id),
                }
            }
            (true, false) => self.query(request, &request_id).await.map(Body::new),
            (false, true) => refuse(ApiError::new(ErrorCode::AuthFailure, PLAIN), address, &request_id),
            (false, false) => {
                let refusal = self
                    .face
                    .refuse(StatusCode::FORBIDDEN, "AuthFailure", PLAIN, &request_id);
                let mut refusal = refusal.map(Body::new);
                if request.version() < Version::HTTP_2 {
                    // Whatever else has come, nobody reads it.
                    let headers = refusal.headers_mut();
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                refusal
            }
        };
        let response = if is_grpc {
            words::told(&path, response)
        } else {
            response
        };
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            tracing::info!(%address, request_id, status = status.as_u16(), "denied");
        }
        response
    }

    async fn grpc(&self, request: Request<Incoming>) -> Response<Body> {
        let mut grpc = self.grpc.clone();
        let answered = async {
            std::future::poll_fn(|context| grpc.poll_ready(context)).await?;
            grpc.call(request.map(Body::new)).await
        };
        match answered.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn query(
        &self,
        request: Request<Incoming>,
        request_id: &str,
    ) -> Response<http_body_util::Full<Bytes>> {
        let (mut head, body) = request.into_parts();
        // What HTTP/2 calls the authority is signed as the host.
        if let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.entry(HOST).or_insert(host);
        }
        let body = tokio::time::timeout(ARRIVAL, Limited::new(body, MAX_BODY).collect()).await;
        let refuse = |status, message: &str| self.face.refuse(status, "InvalidRequest", message, request_id);
        match body {
            Ok(Ok(body)) => {
                let request = Request::from_parts(head, body.to_bytes());
                self.face.answer(request, request_id).await
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = format!("The body of a request has at most {MAX_BODY} bytes.");
                refuse(StatusCode::PAYLOAD_TOO_LARGE, &message)
            }
            Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "The request did not arrive whole."),
            Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time."),
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A refusal of gRPC before its services see the request.
fn refuse(error: ApiError, address: SocketAddr, request_id: &str) -> Response<Body> {
    tracing::info!(%address, request_id, code = %error.code, "denied");
    let mut response = Status::from(error).into_http();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
