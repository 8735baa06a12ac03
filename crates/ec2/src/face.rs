//! A request of one of AWS's protocols, from its signature to its answer. What it asks for is done by the services that gRPC
//! callers call, in this process.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use hearth_api::client::REQUEST_ID;
use hearth_api::token::REGION;
use hearth_api::{ApiError, ErrorCode};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, TE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::model::{Model, ModelError, Protocol, Service};
use crate::refusal::Refusal;
use crate::signature::{self, Denied, Keys, Scope};
use crate::table::{Call, Table};
use crate::{form, json, xml};

/// The regions that requests may be signed for.
pub trait Regions: Send + Sync {
    /// Of requests whose signature names none.
    fn home(&self) -> &str;

    fn has(&self, name: &str) -> bool;
}

/// The protocols' door to the services `G`.
#[derive(Debug)]
pub struct Face<G, K, R> {
    /// EC2's first.
    tables: Vec<(Service, Table)>,
    grpc: G,
    keys: K,
    regions: R,
}

/// What goes wrong on the way to an answer.
struct Failure {
    code: String,
    message: String,
    status: StatusCode,
}

impl<G, K, R> Face<G, K, R>
where
    G: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    K: Keys,
    R: Regions,
{
    /// Of the services of a package. Calls that the model does not have are Hearth's own, and not served here.
    ///
    /// # Errors
    /// The model cannot be read.
    pub fn new(
        pool: &DescriptorPool,
        package: &str,
        grpc: G,
        keys: K,
        regions: R,
    ) -> Result<Self, ModelError> {
        let table = |service| {
            let own = pool
                .services()
                .filter(|own| own.package_name() == package && Service::of(own.name()) == service);
            Ok((service, Table::join(&Model::of(service)?, own).0))
        };
        Ok(Self {
            tables: Service::ALL.into_iter().map(table).collect::<Result<_, _>>()?,
            grpc,
            keys,
            regions,
        })
    }

    /// Answers a request. `request_id` is that of requests that no service sees. Services get the request's extensions, and
    /// who has signed it among them.
    pub async fn answer(&self, request: Request<Bytes>, request_id: &str) -> Response<Full<Bytes>> {
        let mut request_id = request_id.to_owned();
        let (head, body) = request.into_parts();
        let scope = Scope::of(&head);
        let (service, table) = match &scope {
            Some(scope) => match self.tables.iter().find(|(of, _)| of.name() == scope.service) {
                Some(found) => found,
                None => {
                    let message = format!("The service {} is not served here.", scope.service);
                    return self.refuse(StatusCode::BAD_REQUEST, "InvalidAction", &message, &request_id);
                }
            },
            None => &self.tables[0],
        };
        let request = Request::from_parts(head, body);
        let (region, is_known) = match &scope {
            Some(scope) if self.regions.has(&scope.region) => (scope.region.as_str(), true),
            Some(scope) if service.is_global() && scope.region == GLOBAL_REGION => (GLOBAL_REGION, true),
            // Another region than it was signed for, so that its signature is wrong.
            Some(_) => (self.regions.home(), false),
            None => (self.regions.home(), true),
        };
        let done = self
            .work((*service, table, region), request, &mut request_id)
            .await;
        let done = done.map_err(|mut failure| {
            if let (Some(scope), false) = (&scope, is_known) {
                let meant: String = scope.region.chars().take(MOST_OF_A_NAME).collect();
                let why = format!(" The request is signed for the region '{meant}', which is not here.");
                failure.message.push_str(&why);
            }
            failure
        });
        match done {
            Ok(said) => response(table.protocol, StatusCode::OK, said, &request_id),
            Err(failure) => refuse(
                table,
                failure.status,
                &failure.code,
                &failure.message,
                &request_id,
            ),
        }
    }

    /// Refuses a request that did not come in.
    pub fn refuse(
        &self,
        status: StatusCode,
        code: &str,
        message: &str,
        request_id: &str,
    ) -> Response<Full<Bytes>> {
        refuse(&self.tables[0].1, status, code, message, request_id)
    }

    /// The answer's text; the request's id is that of its call, when it comes to one.
    async fn work(
        &self,
        (service, table, region): (Service, &Table, &str),
        request: Request<Bytes>,
        request_id: &mut String,
    ) -> Result<String, Failure> {
        let (mut head, body, signer) = signature::verify(request, service, region, &self.keys).await?;
        let (call, message) = match table.protocol {
            Protocol::Ec2 | Protocol::Query => of_form(table, &head, &body)?,
            Protocol::Json => of_json(table, &head, &body)?,
        };
        head.extensions.insert(signer);
        let answer = self
            .call(call, &message, (region, head.extensions), request_id)
            .await?;
        let said = match table.protocol {
            Protocol::Ec2 | Protocol::Query => xml::answer(table, call, &answer, request_id),
            Protocol::Json => json::answer(table, call, &answer),
        };
        said.map_err(|error| ApiError::internal(&error).into())
    }

    /// A call's answer, of the service that has it.
    async fn call(
        &self,
        call: &Call,
        message: &[u8],
        (region, extensions): (&str, Extensions),
        request_id: &mut String,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(Body::new(Full::new(framed(message))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = call.path.parse().map_err(|error| ApiError::internal(&error))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        headers.insert(TE, http::HeaderValue::from_static("trailers"));
        let region = http::HeaderValue::from_str(region).map_err(|error| ApiError::internal(&error))?;
        headers.insert(REGION, region);
        *request.extensions_mut() = extensions;
        let mut grpc = self.grpc.clone();
        let response = match std::future::poll_fn(|context| grpc.poll_ready(context)).await {
            Ok(()) => grpc.call(request).await,
            Err(never) => Err(never),
        };
        let (head, body) = match response {
            Ok(response) => response.into_parts(),
            Err(never) => match never {},
        };
        if let Some(id) = head.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
            id.clone_into(request_id);
        }
        check(&head.headers)?;
        let body = body.collect().await.map_err(|status| Failure::from(&status))?;
        if let Some(trailers) = body.trailers() {
            check(trailers)?;
        }
        let answer = body.to_bytes();
        // Without a message there is no frame.
        Ok(answer.slice(FRAME.min(answer.len())..))
    }
}

/// The call and its message that a form asks for, in the body or in the query.
fn of_form<'t>(table: &'t Table, head: &Parts, body: &[u8]) -> Result<(&'t Call, Vec<u8>), Failure> {
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let form = if is_form(&head.headers) { body } else { &[] };
    let parameters = || form_urlencoded::parse(query).chain(form_urlencoded::parse(form));
    let action = parameters()
        .find(|(name, _)| name == "Action")
        .map(|(_, action)| action);
    let action = action.ok_or_else(|| {
        Failure::of(
            "MissingAction",
            "The request must contain the parameter Action.".to_owned(),
        )
    })?;
    let call = table.call(&action).ok_or_else(|| unknown(&action))?;
    Ok((call, form::message(table, call, parameters())?))
}

/// The call that a header names, and its message of the body.
fn of_json<'t>(table: &'t Table, head: &Parts, body: &[u8]) -> Result<(&'t Call, Vec<u8>), Failure> {
    let target = head.headers.get(json::TARGET);
    let target = target.and_then(|target| target.to_str().ok()).unwrap_or_default();
    let action = table.action(target).filter(|_| head.method == Method::POST);
    let call = action.and_then(|action| table.call(action));
    let call = call.ok_or_else(|| unknown(target))?;
    Ok((call, json::message(table, call, body)?))
}

/// Characters of a name that a refusal repeats.
const MOST_OF_A_NAME: usize = 128;

/// Whatever length its name has.
fn unknown(action: &str) -> Refusal {
    Refusal::InvalidAction(action.chars().take(MOST_OF_A_NAME).collect())
}

/// Not the service's fault, though EC2 says so by its status.
const THROTTLED: &str = "RequestLimitExceeded";
/// What requests to services without regions are signed for.
const GLOBAL_REGION: &str = "us-east-1";

fn refuse(
    table: &Table,
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: &str,
) -> Response<Full<Bytes>> {
    let is_ours = status.is_server_error();
    if table.protocol != Protocol::Json {
        let said = xml::error(table, code, message, is_ours, request_id);
        return response(table.protocol, status, said, request_id);
    }
    // Whatever a caller can mend has one status there.
    let status = match code {
        THROTTLED => StatusCode::BAD_REQUEST,
        _ if is_ours => status,
        _ => StatusCode::BAD_REQUEST,
    };
    let said = json::error(json::code(code), message);
    response(table.protocol, status, said, request_id)
}

/// The frame around a gRPC message: a flag and a length.
const FRAME: usize = 5;

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(FRAME + message.len());
    framed.put_u8(0);
    // Requests are far smaller.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// # Errors
/// What a service has refused.
fn check(headers: &HeaderMap) -> Result<(), Failure> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(Failure::from(&status)),
        _ => Ok(()),
    }
}

pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    const FORM: &str = "application/x-www-form-urlencoded";
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == FORM))
}

fn response(protocol: Protocol, status: StatusCode, said: String, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static(match protocol {
            Protocol::Ec2 | Protocol::Query => "text/xml;charset=UTF-8",
            Protocol::Json => json::CONTENT_TYPE,
        }),
    );
    headers.insert(
        CACHE_CONTROL,
        http::HeaderValue::from_static("no-cache, no-store"),
    );
    if let Ok(id) = request_id.parse() {
        headers.insert(REQUEST_ID, id);
    }
    response
}

impl Failure {
    fn of(code: &str, message: String) -> Self {
        Self {
            code: code.to_owned(),
            message,
            status: StatusCode::BAD_REQUEST,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::of(refusal.code(), refusal.to_string())
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self {
            code: denied.code.to_owned(),
            message: denied.message,
            status: denied.status,
        }
    }
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>: what may heal is 5xx, for clients repeat it.
impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match error.code {
            ErrorCode::DryRunOperation => StatusCode::PRECONDITION_FAILED,
            ErrorCode::UnauthorizedOperation | ErrorCode::AccessDenied => StatusCode::FORBIDDEN,
            ErrorCode::AuthFailure => StatusCode::UNAUTHORIZED,
            ErrorCode::NoSuchEntity => StatusCode::NOT_FOUND,
            ErrorCode::EntityAlreadyExists | ErrorCode::DeleteConflict | ErrorCode::LimitExceeded => {
                StatusCode::CONFLICT
            }
            ErrorCode::RequestLimitExceeded | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::InternalError | ErrorCode::InsufficientInstanceCapacity => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            code: error.code.as_str().to_owned(),
            message: error.message,
            status,
        }
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        match ApiError::from_status(status) {
            Some(error) => error.into(),
            // What no service has seen.
            None => ApiError::internal(status).into(),
        }
    }
}
