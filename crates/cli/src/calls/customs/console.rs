//! GetConsoleOutput: the text itself.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::ArgMatches;
use futures::future::LocalBoxFuture;
use serde_json::Value;

use super::{Call, Custom, Request};
use crate::context::Context;
use crate::error::CliError;

pub(super) struct GetConsoleOutput;

impl Custom for GetConsoleOutput {
    fn run<'a>(
        &'a self,
        call: &'static Call,
        _: &'a ArgMatches,
        context: &'a Context,
        request: Request,
    ) -> LocalBoxFuture<'a, Result<Value, CliError>> {
        Box::pin(async move {
            let mut answer = call.call(request, context).await?;
            if let Some(output) = answer.get_mut("Output")
                && let Some(bytes) = output.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok())
            {
                *output = String::from_utf8_lossy(&bytes).into();
            }
            Ok(answer)
        })
    }
}
