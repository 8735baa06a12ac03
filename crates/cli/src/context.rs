//! What every command is given: the way to the service, and the way to print.

use hearth_api::Client;
use tonic::transport::Uri;
use tonic::{Response, Status};

use crate::error::{CliError, innermost};
use crate::output::{Answer, Printer};

pub(crate) struct Context {
    endpoint: String,
    pub(crate) printer: Printer,
}

impl Context {
    /// `endpoint` may leave out `http://`.
    pub(crate) fn new(endpoint: &str, printer: Printer) -> Result<Self, CliError> {
        let endpoint = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        let uri: Uri = endpoint
            .parse()
            .map_err(|e| CliError::parameter("--endpoint-url", format!("'{endpoint}' is no URL: {e}")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            let problem = format!("'{endpoint}' is no URL of the form http://HOST:PORT");
            return Err(CliError::parameter("--endpoint-url", problem));
        }
        Ok(Self { endpoint, printer })
    }

    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        Client::connect(&self.endpoint)
            .await
            .map_err(|error| CliError::Unreachable {
                endpoint: self.endpoint.clone(),
                cause: innermost(&error),
            })
    }

    /// Unwraps what a call was answered with; `operation` is EC2's name of the call.
    pub(crate) fn answered<T>(
        &self,
        operation: &'static str,
        result: Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        match result {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(CliError::call(operation, &self.endpoint, &status)),
        }
    }

    pub(crate) fn print(&self, answer: &impl Answer) -> Result<(), CliError> {
        self.printer.print(answer)
    }
}
