//! A client of the public API: one connection, all services.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::endpoint::{self, ConnectError};

/// Bytes of one answer: a Describe without pages over thousands of instances fits.
pub const MAX_ANSWER: usize = 64 << 20;

/// Metadata of every answer, errors included: the id under which `hearthd` logs and audits the call.
pub const REQUEST_ID: &str = "x-amzn-requestid";
/// Bytes of one request: a piece of 1 MiB of an upload, with what is around it.
pub const MAX_REQUEST: usize = (1 << 20) + (16 << 10);

// The client itself, and the services' names: as many as `proto/hearth/v1` has.
include!(concat!(env!("OUT_DIR"), "/services.rs"));

impl Client {
    /// Connects to an endpoint such as [`endpoint::DEFAULT_ENDPOINT`].
    ///
    /// # Errors
    /// As [`channel`].
    pub async fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        Ok(Self::new(channel(endpoint).await?))
    }
}

/// A connection to `hearthd` that is made anew when it was lost; each time it is checked who listens.
///
/// # Errors
/// `endpoint` is none, nobody listens there, the caller is not admitted, or it is not `hearthd` that listens.
pub async fn channel(endpoint: &str) -> Result<Channel, ConnectError> {
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
    Endpoint::from_static("http://hearthd")
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .connect_with_connector(connector)
        .await
        .map_err(ConnectError::Transport)
}
