//! HTTP for IMDS: an interface's connections, their bounds, and the hop limit of token answers.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Imds, Question};
use crate::plan::IMDS_ADDRESS;
use crate::share::{Service, Share};
use crate::sockets::{self, PAUSE};

const PORT: u16 = 80;
/// How long a request's header may take to arrive, and a connection be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection's whole life: clients of IMDS are short.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a request's line and headers. Bodies are not read.
const MAX_HEADER: usize = 16 * 1024;
/// Of Linux (`net.ipv4.ip_default_ttl`).
const DEFAULT_TTL: u8 = 64;

/// Opens an interface's listener in the calling thread's namespace, on the TAP, which must exist.
pub(crate) fn open_listener(tap: &str) -> io::Result<OwnedFd> {
    sockets::tcp(tap, SocketAddrV4::new(IMDS_ADDRESS, PORT))
}

/// Serves for as long as it is polled. Must be called in a runtime's context.
///
/// # Errors
/// The socket cannot be registered with the runtime.
pub(crate) async fn serve(listener: OwnedFd, share: Arc<Share>, imds: Arc<Imds>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.into())?;
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok((stream, address)) => match address.ip() {
                IpAddr::V4(from) => (stream, from),
                IpAddr::V6(_) => continue,
            },
            Err(error) => {
                tracing::debug!(%error, "accepting an IMDS connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !share.admit(Service::Imds) {
            drop(stream);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        // A client without room is told at once.
        let Some(permit) = share.connection(Service::Imds) else {
            continue;
        };
        let (share, imds) = (share.clone(), imds.clone());
        connections.spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, converse(stream, from, &share, &imds)).await;
            drop(permit);
        });
    }
}

async fn converse(stream: TcpStream, from: Ipv4Addr, share: &Share, imds: &Imds) {
    // A second descriptor, since the connection owns the first.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(if share.admit(Service::Imds) {
            answer(imds, from, &request, &socket)
        } else {
            over_rate()
        })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "an IMDS connection ended");
    }
}

/// Retry later, and on another connection (EC2's user guide, "Query response codes").
fn over_rate() -> Response<Body> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn answer(imds: &Imds, from: Ipv4Addr, request: &Request<Incoming>, socket: &OwnedFd) -> Response<Body> {
    let reply = imds.reply(&Question {
        from,
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
    });
    // A token must not travel further than the instance allows; other answers may.
    let ttl = i32::from(reply.hop_limit.unwrap_or(DEFAULT_TTL));
    if let Err(error) = setsockopt(socket, sockopt::Ipv4Ttl, &ttl) {
        tracing::warn!(%from, %error, "setting the hop limit");
    }
    reply.response.map(Body::from)
}
