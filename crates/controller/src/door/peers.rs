//! The leader's side of calls that followers forward: they come to the port that agents dial, with a certificate of
//! `hearthd`'s own. Everything else there is the agents'.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_api::{ApiError, ErrorCode};
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::{Layer, Service};

use super::calls::{Forwarded, REQUEST_ID};
use crate::app::App;
use crate::call::{Caller, Origin};
use crate::pki;

/// Who called the follower: a [`Caller`].
pub(super) const CALLER: HeaderName = HeaderName::from_static("hearth-caller");
/// Where the caller's request came from: an [`Origin`].
pub(super) const ORIGIN: HeaderName = HeaderName::from_static("hearth-origin");
/// The leader's position when it had answered.
pub(super) const SEQUENCE: HeaderName = HeaderName::from_static("hearth-sequence");

/// How long an agent may take to send a request, and the store to begin an answer.
const AGENT_DEADLINE: Duration = Duration::from_secs(60);

/// Serves the API to followers, on the API's threads.
#[derive(Clone)]
pub struct Peers<A> {
    api: A,
    app: Arc<App>,
    runtime: Handle,
}

impl<A> Peers<A> {
    pub fn new(api: A, app: Arc<App>, runtime: Handle) -> Self {
        Self { api, app, runtime }
    }
}

impl<A: Clone, S> Layer<S> for Peers<A> {
    type Service = Split<A, S>;

    fn layer(&self, agents: S) -> Split<A, S> {
        Split {
            peers: self.clone(),
            agents,
        }
    }
}

#[derive(Clone)]
pub struct Split<A, S> {
    peers: Peers<A>,
    agents: S,
}

impl<A, S> Service<Request<Body>> for Split<A, S>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.agents.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with("/hearth.v1.") {
            return self.peers.clone().call(request).map(Ok).boxed();
        }
        let mut agents = super::take_ready(&mut self.agents);
        async move {
            match tokio::time::timeout(AGENT_DEADLINE, agents.call(request)).await {
                Ok(answered) => answered,
                Err(_) => Ok(Status::deadline_exceeded("the call took too long").into_http()),
            }
        }
        .boxed()
    }
}

impl<A> Peers<A>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
{
    async fn call(mut self, request: Request<Body>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let probe = tonic::Request::from_parts(MetadataMap::new(), head.extensions.clone(), ());
        let certificates = probe.peer_certs();
        let leaf = certificates.as_ref().and_then(|chain| chain.first());
        if !leaf.is_some_and(pki::is_peer) {
            return Status::permission_denied("the API is not served here: use hearthd's socket").into_http();
        }
        if !self.app.store.is_leader() {
            return Status::from(ApiError::new(
                ErrorCode::Unavailable,
                "The control plane's leader has changed, so that nothing was changed. Try again.",
            ))
            .into_http();
        }
        let caller = head.headers.get(CALLER).and_then(|value| value.to_str().ok());
        match caller.map(str::parse::<Caller>) {
            Some(Ok(caller)) => {
                head.extensions.insert(caller);
            }
            // Without a caller it would be root's.
            Some(Err(error)) => return Status::invalid_argument(error.to_string()).into_http(),
            None => return Status::invalid_argument("a call that is forwarded says whose it is").into_http(),
        }
        let id = head.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        if let Some(id) = id.map(str::to_owned) {
            let origin = head.headers.get(ORIGIN).and_then(|value| value.to_str().ok());
            head.extensions.insert(Forwarded {
                request_id: id,
                origin: origin.and_then(Origin::read),
            });
        }
        let request = Request::from_parts(head, body);
        let app = Arc::clone(&self.app);
        let answered = self.runtime.spawn(async move {
            std::future::poll_fn(|context| self.api.poll_ready(context)).await?;
            self.api.call(request).await
        });
        let mut response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => return Status::internal("the call broke down; hearthd's log says why").into_http(),
        };
        let sequence = app.store.state().sequence();
        response
            .headers_mut()
            .insert(SEQUENCE, HeaderValue::from(sequence));
        response
    }
}
