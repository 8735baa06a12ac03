//! A client of the public API: one connection, all services.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::endpoint::{self, ConnectError};
use crate::remote::{Address, Trust};
use crate::token::{Credentials, REGION, SESSION_TOKEN};

/// Bytes of one answer: a Describe without pages over thousands of instances fits.
pub const MAX_ANSWER: usize = 64 << 20;

/// Metadata of every answer, errors included: the id under which `hearthd` logs and audits the call.
pub const REQUEST_ID: &str = "x-amzn-requestid";
/// Bytes of one request: a piece of 1 MiB of an upload, with what is around it.
pub const MAX_REQUEST: usize = (1 << 20) + (16 << 10);

// The client itself, and the services' names: as many as `proto/hearth/v1` has.
include!(concat!(env!("OUT_DIR"), "/services.rs"));

/// A connection to `hearthd` that is made anew when it was lost; each time it is checked who listens. Its calls say who makes
/// them.
pub type Transport = InterceptedService<Channel, Introduction>;

impl Client {
    /// Connects to an endpoint such as [`endpoint::DEFAULT_ENDPOINT`].
    ///
    /// # Errors
    /// As [`channel`].
    pub async fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        Ok(Self::new(channel(endpoint).await?))
    }
}

/// A connection to the socket of an endpoint such as [`endpoint::DEFAULT_ENDPOINT`], where the kernel says who calls.
///
/// # Errors
/// `endpoint` is none, nobody listens there, the caller is not admitted, or it is not `hearthd` that listens.
pub async fn channel(endpoint: &str) -> Result<Transport, ConnectError> {
    socket(endpoint, Introduction::default()).await
}

/// As [`channel`], with calls that are introduced.
///
/// # Errors
/// As [`channel`].
pub async fn socket(endpoint: &str, introduction: Introduction) -> Result<Transport, ConnectError> {
    let path: Arc<std::path::Path> = endpoint::socket_path(endpoint)?.into();
    // The first time outside of the channel, whose errors hide what happened.
    let mut first = Some(endpoint::connect(&path).await?);
    let connector = tower::service_fn(move |_| {
        let (path, first) = (Arc::clone(&path), first.take());
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => endpoint::connect(&path).await?,
            };
            Ok::<_, ConnectError>(TokioIo::new(stream))
        }
    });
    // The name is what HTTP/2 wants as an authority.
    let channel = settings(Endpoint::from_static("http://hearthd"))
        .connect_with_connector(connector)
        .await
        .map_err(ConnectError::Transport)?;
    Ok(introduction.over(channel))
}

/// A connection to a `hearthd` elsewhere, whose calls are introduced.
///
/// # Errors
/// Nobody answers there, or not who is trusted.
pub async fn remote(
    address: Address,
    trust: &Trust,
    introduction: Introduction,
) -> Result<Transport, ConnectError> {
    let tls = address.tls(trust)?;
    let mut first = Some(address.connect(tls.as_ref()).await?);
    // The scheme is http to tonic, since the connector brings the TLS.
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()));
    let endpoint = settings(endpoint.map_err(ConnectError::Transport)?);
    let way = Arc::new((address, tls));
    let connector = tower::service_fn(move |_| {
        let (way, first) = (Arc::clone(&way), first.take());
        async move {
            let (address, tls) = &*way;
            let stream = match first {
                Some(stream) => stream,
                None => address.connect(tls.as_ref()).await?,
            };
            Ok::<_, ConnectError>(TokioIo::new(stream))
        }
    });
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(ConnectError::Transport)?;
    Ok(introduction.over(channel))
}

fn settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
}

/// What calls say of who makes them, and of the region that they are for. Each call has a new token.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    pub credentials: Option<Arc<Credentials>>,
    pub region: Option<MetadataValue<Ascii>>,
}

impl Introduction {
    /// A connection that exists, with calls that are introduced.
    pub fn over(self, channel: Channel) -> Transport {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let unusable = |what: &str| Status::unauthenticated(format!("the {what} cannot be sent"));
        let metadata = request.metadata_mut();
        if let Some(region) = &self.region {
            metadata.insert(REGION, region.clone());
        }
        if let Some(credentials) = &self.credentials {
            let token = credentials.sign(jiff::Timestamp::now().as_second());
            let token = token.map_err(|_| unusable("token"))?;
            let bearer = format!("Bearer {token}").parse().map_err(|_| unusable("token"))?;
            metadata.insert("authorization", bearer);
            if let Some(session) = &credentials.session_token {
                let session = session.parse().map_err(|_| unusable("session token"))?;
                metadata.insert(SESSION_TOKEN, session);
            }
        }
        Ok(request)
    }
}
