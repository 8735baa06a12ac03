//! HTTP for IMDS: connections, their limits, and the hop limit of token answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Imds, Question};
use crate::NetworkError;
use crate::netns::system_error;
use crate::plan::IMDS_ADDRESS;

const PORT: u16 = 80;
/// Connections of one interface; more are closed at once.
const MAX_CONNECTIONS: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection's whole life: clients of IMDS are short.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Of Linux (`net.ipv4.ip_default_ttl`).
const DEFAULT_TTL: u8 = 64;

/// Opens the listener in the calling thread's namespace, registered with the entered runtime.
pub(crate) fn open_listener() -> Result<TcpListener, NetworkError> {
    let open = || {
        let listener = std::net::TcpListener::bind((IMDS_ADDRESS, PORT))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    open().map_err(|e| system_error(format!("listening on {IMDS_ADDRESS}:{PORT}"), e))
}

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, imds: Imds) {
    let imds = Arc::new(imds);
    let mut limits = Limits::default();
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
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(permit) = limits.of(from).try_acquire_owned() else {
            continue;
        };
        let imds = imds.clone();
        connections.spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, converse(stream, from, &imds)).await;
            drop(permit);
        });
    }
}

async fn converse(stream: TcpStream, from: Ipv4Addr, imds: &Imds) {
    // A second descriptor, since the connection owns the first.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(imds, from, &request, &socket))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "an IMDS connection ended");
    }
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

/// Counts connections by address; forgets those that have none.
#[derive(Default)]
struct Limits(HashMap<Ipv4Addr, Weak<Semaphore>>);

impl Limits {
    fn of(&mut self, from: Ipv4Addr) -> Arc<Semaphore> {
        if let Some(limit) = self.0.get(&from).and_then(Weak::upgrade) {
            return limit;
        }
        self.0.retain(|_, limit| limit.strong_count() > 0);
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        self.0.insert(from, Arc::downgrade(&limit));
        limit
    }
}
