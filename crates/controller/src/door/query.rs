//! The port of AWS's tools: HTTP/1.1 with signed requests of the Query protocol.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_ec2::face::Face;
use hearth_ec2::signature::Keys;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::places::{Limits, Place, Places};
use super::subscriber::subscriber;
use crate::call::new_request_id;

/// Bytes of a request's body. The largest parameters, user data and keys, are far smaller.
const MAX_BODY: usize = 1 << 20;
/// Of a request's head; libcloud's parameters are in it.
const MAX_HEAD: usize = 64 << 10;
/// How long a request's body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or a request's head take to arrive.
const IDLE: Duration = Duration::from_secs(60);
/// After an error of accept(2), such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the port until `ending`.
pub async fn serve<G, K>(
    listener: TcpListener,
    face: Arc<Face<G, K>>,
    places: Limits,
    ending: CancellationToken,
) where
    G: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    G::Future: Send,
    K: Keys + 'static,
{
    let places = Places::new(places);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let place = places.take_anyway(subscriber(address.ip()));
                tokio::spawn(connection(
                    stream,
                    address,
                    Arc::clone(&face),
                    place,
                    ending.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a connection until it ends, its place is needed, or the process ends.
async fn connection<G, K>(
    stream: TcpStream,
    address: SocketAddr,
    face: Arc<Face<G, K>>,
    place: Place<IpAddr>,
    ending: CancellationToken,
) where
    G: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    G::Future: Send,
    K: Keys + 'static,
{
    let _ = stream.set_nodelay(true);
    let serve = service_fn(move |request| {
        let face = Arc::clone(&face);
        async move { Ok::<_, Infallible>(answer(&face, address, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), serve);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.evicted() => return,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %address, "a connection ended");
    }
}

async fn answer<G, K>(
    face: &Face<G, K>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>>
where
    G: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync,
    G::Future: Send,
    K: Keys,
{
    let request_id = new_request_id();
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(ARRIVAL, Limited::new(body, MAX_BODY).collect());
    let refuse = |status, message: &str| face.refuse(status, "InvalidRequest", message, &request_id);
    let response = match body.await {
        Ok(Ok(body)) => {
            let mut request = Request::from_parts(head, body.to_bytes());
            request.extensions_mut().insert(address.ip().to_canonical());
            face.answer(request, &request_id).await
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("The body of a request has at most {MAX_BODY} bytes.");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, &message)
        }
        Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "The request did not arrive whole."),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time."),
    };
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        tracing::info!(%address, request_id, status = status.as_u16(), "denied");
    }
    response
}
