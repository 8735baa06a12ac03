//! What every call of the API goes through: its context (request id, action, principal), the right to it, its rate, a bound
//! on the request, a place among the calls at work, a deadline, a thread of its own, and a line of the log. The audit rows
//! of its transactions take their action and principal from the context.
//!
//! A call with one answer runs on a thread of the blocking pool, its answer's encoding included: whatever it computes, the
//! threads that serve connections stay free, and so does whoever calls meanwhile. It also runs to its end when the
//! caller leaves: a commit is never cut off from what follows it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hearth_api::bounds::{self, CallShape};
use hearth_api::client::MAX_REQUEST;
use hearth_api::token::REGION;
use hearth_api::{ApiError, ErrorCode};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::places::{Limits, Place, Places};
use super::throttle::{Throttle, is_reading};
use crate::app::App;
use crate::call::{Call, Caller, Endpoint, Origin, Principal};
use crate::iam::Authorizer;

/// Calls at work at the same time, and answers that are on their way. A call has a thread.
const CALLS: Limits = Limits {
    total: 128,
    per_peer: 64,
};
/// Streams at the same time: watchers, uploads.
const STREAMS: Limits = Limits {
    total: 512,
    per_peer: 256,
};
/// Services that are about the cloud itself.
const OPERATORS: [&str; 4] = [
    "/hearth.v1.Accounts/",
    "/hearth.v1.CloudRegions/",
    "/hearth.v1.Hosts/",
    "/hearth.v1.Storage/",
];
/// Metadata of every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static(hearth_api::client::REQUEST_ID);
/// Characters of a region's name that a refusal repeats.
const MOST_SHOWN: usize = 128;
/// The frame around a gRPC message: a flag and a length.
const FRAME: usize = 5;
/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a call may take from then on.
const DEADLINE: Duration = Duration::from_secs(60);

/// A call that a follower has forwarded, in the extensions of its request. Its id is the follower's. It is throttled
/// here too: the leader alone sees all calls of an account.
#[derive(Debug, Clone)]
pub(super) struct Forwarded {
    pub request_id: String,
    pub origin: Option<Origin>,
}

/// Puts calls under their bounds.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    app: Arc<App>,
    authorizer: Authorizer,
    throttle: Throttle,
    calls: Arc<Places<Caller>>,
    streams: Arc<Places<Caller>>,
    /// By path. What is not in it is health and reflection.
    shapes: HashMap<String, CallShape>,
}

impl Calls {
    /// # Errors
    /// The API's descriptors cannot be read.
    pub fn new(app: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(Arc::new(Shared {
            app: Arc::clone(app),
            authorizer: Authorizer::new()?,
            throttle: Throttle::new(app.config.request_rate_percent),
            calls: Places::new(CALLS),
            streams: Places::new(STREAMS),
            shapes: bounds::call_shapes()?,
        })))
    }
}

impl<S> Layer<S> for Calls {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// Held by the work and by the answer.
type Held = Arc<Place<Caller>>;

impl<S> Service<Request<Body>> for Bounded<S>
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
        let inner = super::take_ready(&mut self.inner);
        let shared = Arc::clone(&self.shared);
        let operation = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let caller = request.extensions().get::<Caller>().cloned();
        let mut call = Call::new(operation, shared.principal(caller.unwrap_or(Caller::UNKNOWN)));
        call.is_operators = OPERATORS.iter().any(|of| request.uri().path().starts_with(of));
        call.origin = request.extensions().get::<Origin>().copied();
        call.endpoint = request.extensions().get::<Endpoint>().cloned();
        if let Some(forwarded) = request.extensions().get::<Forwarded>() {
            call.request_id.clone_from(&forwarded.request_id);
            call.origin = forwarded.origin;
        }
        let region = shared.region(request.uri().path(), request.headers());
        let refused = region.map(|region| call.region = region).err();
        let call = Arc::new(call);
        let span = tracing::info_span!(
            "call",
            action = call.action,
            request_id = call.request_id,
            caller = %call.principal.caller
        );
        let work = async move {
            let is_ours = shared.shapes.contains_key(request.uri().path());
            let mut response = match refused {
                Some(error) => refuse(error),
                None => shared.run(inner, request, &call).await,
            };
            if let Ok(id) = HeaderValue::from_str(&call.request_id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            tell(&response, is_ours && !is_reading(&call.action));
            Ok(response)
        };
        work.instrument(span).boxed()
    }
}

impl Shared {
    /// One whose key, user or role is gone acts for no account, and is refused when its rights are looked up.
    fn principal(&self, caller: Caller) -> Principal {
        let account = caller.account(&self.app.store.state(), &self.app.cloud.owner_id);
        Principal {
            account_id: account.unwrap_or_default(),
            caller,
        }
    }

    async fn run<S>(&self, mut inner: S, request: Request<Body>, call: &Arc<Call>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send,
    {
        let shape = self.shapes.get(request.uri().path());
        // Health and reflection are nobody's.
        if shape.is_some()
            && let Err(error) = self.throttle.admit(&call.principal.account_id, &call.action)
        {
            return refuse(error);
        }
        let places = match shape {
            Some(CallShape::Unary { .. }) => &self.calls,
            _ => &self.streams,
        };
        let Some(place) = places.take(call.principal.caller.peer()).map(Arc::new) else {
            return refuse(ApiError::new(
                ErrorCode::RequestLimitExceeded,
                "Request limit exceeded. Try again when fewer calls are at work.",
            ));
        };
        let response = match shape {
            Some(shape @ CallShape::Unary { .. }) => match arrive(request, *shape).await {
                Ok((head, body, dry_run)) => {
                    let message = body.get(FRAME..).unwrap_or_default();
                    if let Err(error) = self.authorizer.check(&self.app, call, head.uri.path(), message) {
                        return refuse(error);
                    }
                    let request = Request::from_parts(head, Body::new(Full::new(body)));
                    let call = Arc::new(Call {
                        dry_run,
                        ..Call::clone(call)
                    });
                    apart(inner, request, Arc::clone(&place), call).await
                }
                Err(error) => refuse(error),
            },
            _ => {
                // What a stream will say is not known yet: the right to it is the right to all that it may be about.
                if shape.is_some()
                    && let Err(error) = self.authorizer.check(&self.app, call, request.uri().path(), &[])
                {
                    return refuse(error);
                }
                match Arc::clone(call).serve(inner.call(request)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        held(response, place)
    }
}

/// Whether the service of a path is for no region: the operator's are not, nor IAM and STS.
fn is_global(path: &str) -> bool {
    let service = path
        .strip_prefix("/hearth.v1.")
        .and_then(|path| path.split('/').next());
    OPERATORS.iter().any(|of| path.starts_with(of))
        || service.is_some_and(|service| hearth_ec2::Service::of(service).is_global())
}

impl Shared {
    /// The region that a call is for: the one that the caller names, or else the home region. Empty for a service that is
    /// for none, whichever is named.
    ///
    /// # Errors
    /// `AuthFailure`: there is no such region.
    fn region(&self, path: &str, headers: &HeaderMap) -> Result<String, ApiError> {
        if is_global(path) {
            return Ok(String::new());
        }
        let Some(meant) = headers.get(REGION) else {
            return Ok(self.app.config.region.clone());
        };
        let meant = String::from_utf8_lossy(meant.as_bytes());
        if self.app.store.state().region(&meant).is_some() {
            return Ok(meant.into_owned());
        }
        let meant: String = meant.chars().take(MOST_SHOWN).collect();
        Err(ApiError::new(
            ErrorCode::AuthFailure,
            format!(
                "The call is for the region '{meant}', which this cloud does not have. DescribeRegions tells those that it has."
            ),
        ))
    }
}

/// The whole request, if it is no larger than it may be and comes in time; and whether it is for a dry run.
async fn arrive(request: Request<Body>, shape: CallShape) -> Result<(Parts, Bytes, bool), ApiError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST + FRAME).collect();
    let too_late = |_| ApiError::new(ErrorCode::Unavailable, "The request did not arrive in time.");
    let arrived = tokio::time::timeout(ARRIVAL, body).await.map_err(too_late)?;
    match arrived {
        Ok(body) => {
            let bytes = body.to_bytes();
            let dry_run = shape.is_dry_run(bytes.get(FRAME..).unwrap_or_default());
            Ok((head, bytes, dry_run))
        }
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("A request has at most {MAX_REQUEST} bytes.");
            Err(ApiError::new(ErrorCode::InvalidParameterValue, message))
        }
        Err(error) => {
            tracing::debug!(%error, "a request did not arrive");
            Err(ApiError::new(
                ErrorCode::Unavailable,
                "The request did not arrive whole.",
            ))
        }
    }
}

/// Runs a call to the end of its answer, on a thread that may block.
async fn apart<S>(mut inner: S, request: Request<Body>, place: Held, call: Arc<Call>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let runtime = Handle::current();
    let span = tracing::Span::current();
    let dry_run = call.dry_run;
    let work = move || {
        let _place = place;
        let answer = async {
            let response = match inner.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (head, body) = response.into_parts();
            match body.collect().await {
                Ok(body) => Response::from_parts(head, Body::new(body)),
                Err(status) => status.into_http(),
            }
        };
        runtime.block_on(call.serve(tokio::time::timeout(DEADLINE, answer).instrument(span)))
    };
    match tokio::task::spawn_blocking(work).await {
        // Of a call that changes nothing; transactions refuse dry runs by themselves.
        Ok(Ok(response)) if dry_run && !response.headers().contains_key(Status::GRPC_STATUS) => {
            refuse(ApiError::dry_run())
        }
        Ok(Ok(response)) => response,
        Ok(Err(_)) => refuse(ApiError::new(
            ErrorCode::Unavailable,
            format!("The call took more than {} seconds.", DEADLINE.as_secs()),
        )),
        Err(panic) => refuse(ApiError::internal(&panic)),
    }
}

/// An answer that keeps its place until it has been read, or its reader is gone.
fn held(response: Response<Body>, place: Held) -> Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &place;
            frame
        }))
    })
}

fn refuse(error: ApiError) -> Response<Body> {
    Status::from(error).into_http()
}

/// A line of the log for each refusal, and for each call that changed something.
fn tell(response: &Response<Body>, changes: bool) {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => match ApiError::from_status(&status) {
            Some(error) => tracing::info!(code = %error.code, message = error.message, "refused"),
            None => tracing::info!(code = ?status.code(), message = status.message(), "refused"),
        },
        _ if changes => tracing::info!("done"),
        _ => {}
    }
}
