//! A follower's part of the API: it answers what its own state can answer, and forwards the rest to the leader, once, over
//! mutual TLS, at the port that agents dial.
//!
//! A call that may have reached the leader is never sent again: the caller is told, and may repeat it with the same
//! ClientToken. An answer is handed on when this process has what the call changed, so that a caller sees its own changes.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_api::join::SERVER_NAME;
use hearth_api::{ApiError, ErrorCode};
use http::{HeaderValue, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Layer, Service};

use super::calls::REQUEST_ID;
use super::peers::{CALLER, ORIGIN, SEQUENCE};
use crate::app::App;
use crate::call::{Call, Caller};
use crate::pki::Authority;
use crate::store::Standing;

/// How long a call waits for a leader while there is none.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
/// A leader that is stopped, or whose machine is gone, is noticed after twice this time.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// Calls whose answer depends on which hosts are connected, which only the leader knows.
const OF_CONNECTIONS: &[&str] = &["DescribeAvailabilityZones", "DescribeInstanceStatus"];
/// Tells about a key, and makes the cloud's own if that is not there yet.
const MAKES: &str = "DescribeKey";

#[derive(Clone)]
pub struct Forward(Arc<Shared>);

struct Shared {
    app: Arc<App>,
    authority: Arc<Authority>,
    /// The connection to the leader, by its endpoint.
    leader: Mutex<Option<(String, Channel)>>,
}

impl Forward {
    pub fn new(app: Arc<App>, authority: Arc<Authority>) -> Self {
        Self(Arc::new(Shared {
            app,
            authority,
            leader: Mutex::new(None),
        }))
    }
}

impl<S> Layer<S> for Forward {
    type Service = Forwarding<S>;

    fn layer(&self, inner: S) -> Forwarding<S> {
        Forwarding {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

#[derive(Clone)]
pub struct Forwarding<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Forwarding<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = super::take_ready(&mut self.inner);
        if self.shared.app.store.is_leader() || is_own(request.uri().path()) {
            return inner.call(request).boxed();
        }
        let shared = Arc::clone(&self.shared);
        async move {
            match shared.leader().await {
                Ok(Some((endpoint, leader))) => Ok(shared.forward(&endpoint, leader, request).await),
                // This process is the leader by now.
                Ok(None) => inner.call(request).await,
                Err(error) => Ok(Status::from(error).into_http()),
            }
        }
        .boxed()
    }
}

/// Whether a follower answers the call itself.
fn is_own(path: &str) -> bool {
    // Health and reflection are not of this package.
    let Some(call) = path.strip_prefix("/hearth.v1.") else {
        return true;
    };
    let operation = call.rsplit('/').next().unwrap_or_default();
    let reads = operation.starts_with("Describe") || operation == "WatchInstances";
    reads && operation != MAKES && !OF_CONNECTIONS.contains(&operation)
}

impl Shared {
    /// A connection to the leader; `None` when it is this process. Nothing has been sent when there is none.
    async fn leader(&self) -> Result<Option<(String, Channel)>, ApiError> {
        let mut standing = self.app.store.standing();
        let until = Instant::now() + PATIENCE;
        loop {
            let stands = standing.borrow_and_update().clone();
            match stands {
                Standing::Leader(_) => return Ok(None),
                Standing::Follower(Some(endpoint)) => match self.connect(&endpoint).await {
                    Ok(channel) => return Ok(Some((endpoint, channel))),
                    Err(error) => {
                        tracing::debug!(error = %hearth_log::chain(&error), endpoint, "dialling the leader");
                    }
                },
                Standing::Follower(None) => {}
            }
            if Instant::now() >= until {
                return Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "The control plane has no leader at the moment, so that nothing was changed. Try again.",
                ));
            }
            let _ = tokio::time::timeout(Duration::from_millis(200), standing.changed()).await;
        }
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, DialError> {
        if let Some((known, channel)) = &*self.leader.lock().unwrap_or_else(PoisonError::into_inner)
            && known == endpoint
        {
            return Ok(channel.clone());
        }
        let channel = dial(&self.authority, endpoint).await?;
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        *leader = Some((endpoint.to_owned(), channel.clone()));
        Ok(channel)
    }

    async fn forward(
        &self,
        endpoint: &str,
        mut leader: Channel,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let caller = request.extensions().get::<Caller>().cloned();
        let headers = request.headers_mut();
        headers.remove(CALLER);
        // The leader takes no call without.
        match HeaderValue::try_from(caller.unwrap_or(Caller::UNKNOWN).whole()) {
            Ok(value) => {
                headers.insert(CALLER, value);
            }
            Err(error) => return Status::from(ApiError::internal(&error)).into_http(),
        }
        // The leader's log and audit rows say the same id as this answer.
        headers.remove(REQUEST_ID);
        headers.remove(ORIGIN);
        if let Some(call) = Call::current() {
            if let Ok(id) = HeaderValue::from_str(&call.request_id) {
                headers.insert(REQUEST_ID, id);
            }
            let origin = call
                .origin
                .map(|origin| HeaderValue::from_str(&origin.to_string()));
            if let Some(Ok(origin)) = origin {
                headers.insert(ORIGIN, origin);
            }
        }
        let answered = async {
            std::future::poll_fn(|context| leader.poll_ready(context)).await?;
            leader.call(request).await
        };
        let answered = tokio::select! {
            biased;
            answered = answered => Some(answered),
            () = self.deposed(endpoint) => None,
        };
        let mut response = match answered {
            Some(Ok(response)) => response,
            // It may be stopped, and not answer for long.
            None => return lost().into_http(),
            Some(Err(error)) => {
                tracing::warn!(error = %hearth_log::chain(&error), "the leader's answer was lost");
                self.leader.lock().unwrap_or_else(PoisonError::into_inner).take();
                return lost().into_http();
            }
        };
        let sequence = response.headers_mut().remove(SEQUENCE);
        let sequence = sequence.and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(sequence) = sequence {
            self.app.store.caught_up(sequence).await;
        }
        response
    }
}

impl Shared {
    /// Returns when another than the one at this endpoint leads.
    async fn deposed(&self, endpoint: &str) {
        let mut standing = self.app.store.standing();
        let is_other = |standing: &Standing| match standing {
            Standing::Leader(_) => true,
            Standing::Follower(Some(leader)) => leader != endpoint,
            Standing::Follower(None) => false,
        };
        if standing.wait_for(is_other).await.is_err() {
            std::future::pending().await
        }
    }
}

fn lost() -> Status {
    Status::from(ApiError::new(
        ErrorCode::Unavailable,
        "The control plane's leader was lost before it answered: the call may have been done, or not. Repeat it, with the \
         same ClientToken where it has one.",
    ))
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the address of the leader")]
    Endpoint(#[source] tonic::transport::Error),
    #[error("setting up TLS")]
    Tls(#[from] crate::pki::PkiError),
    #[error("connecting to the leader")]
    Connect(#[source] tonic::transport::Error),
}

async fn dial(authority: &Arc<Authority>, endpoint: &str) -> Result<Channel, DialError> {
    let connector = TlsConnector::from(Arc::new(authority.peer_config()?));
    let address = endpoint.to_owned();
    let dialler = tower::service_fn(move |_: http::Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    // The scheme is http to tonic, since the connector brings the TLS.
    Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(DialError::Endpoint)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .connect_with_connector(dialler)
        .await
        .map_err(DialError::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_answers_reads_of_its_state_alone() {
        for own in [
            "/hearth.v1.Instances/DescribeInstances",
            "/hearth.v1.Watch/WatchInstances",
            "/grpc.health.v1.Health/Check",
        ] {
            assert!(is_own(own), "{own}");
        }
        for forwarded in [
            "/hearth.v1.Instances/RunInstances",
            "/hearth.v1.Instances/GetConsoleOutput",
            "/hearth.v1.Regions/DescribeAvailabilityZones",
            "/hearth.v1.Hosts/ListHosts",
            "/hearth.v1.ImageDisks/UploadImage",
        ] {
            assert!(!is_own(forwarded), "{forwarded}");
        }
    }
}
