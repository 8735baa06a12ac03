//! What every command is given: the way to the service, and the way to print.

use hearth_api::Client;
use hearth_api::endpoint::socket_path;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::error::CliError;
use crate::output::Printer;

pub(crate) struct Context {
    endpoint: String,
    pub(crate) printer: Printer,
    /// Whether answers that come in pages are fetched as a whole.
    pub(crate) paginate: bool,
}

impl Context {
    pub(crate) fn new(endpoint: &str, printer: Printer, paginate: bool) -> Result<Self, CliError> {
        socket_path(endpoint).map_err(|error| CliError::parameter("--endpoint-url", error))?;
        let endpoint = endpoint.to_owned();
        Ok(Self {
            endpoint,
            printer,
            paginate,
        })
    }

    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.endpoint).await?)
    }

    pub(crate) async fn channel(&self) -> Result<Channel, CliError> {
        Ok(hearth_api::client::channel(&self.endpoint).await?)
    }

    /// Unwraps what a call was answered with; `operation` is EC2's name of the call.
    pub(crate) fn answered<T>(
        &self,
        operation: &'static str,
        result: Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        match result {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(CliError::call(operation, &status)),
        }
    }
}
