//! What every command is given: the way to the service, and the way to print.

use hearth_api::Client;
use hearth_api::client::Transport;
use tonic::{Response, Status};

use crate::error::CliError;
use crate::output::Printer;
use crate::reach::Reach;

pub(crate) struct Context {
    reach: Reach,
    pub(crate) printer: Printer,
    /// Whether answers that come in pages are fetched as a whole.
    pub(crate) paginate: bool,
}

impl Context {
    pub(crate) fn new(reach: Reach, printer: Printer, paginate: bool) -> Result<Self, CliError> {
        reach.check()?;
        Ok(Self {
            reach,
            printer,
            paginate,
        })
    }

    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(self.channel().await?))
    }

    pub(crate) async fn channel(&self) -> Result<Transport, CliError> {
        self.reach.transport().await
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
