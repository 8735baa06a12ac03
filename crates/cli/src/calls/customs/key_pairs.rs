//! CreateKeyPair: `--save`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use futures::future::LocalBoxFuture;
use serde_json::Value;

use super::{Call, Custom, Request};
use crate::context::Context;
use crate::error::CliError;
use crate::home::NewKeyFile;
use crate::terminal;

const SAVE: &str = "save";

pub(super) struct CreateKeyPair;

impl Custom for CreateKeyPair {
    fn flags(&self, command: Command) -> Command {
        let save = Arg::new(SAVE).long(SAVE).action(ArgAction::SetTrue);
        command.arg(save.help(
            "Puts the private key where `hearth ssh` finds it (~/.hearth/keys/NAME.pem) in place of printing it.",
        ))
    }

    fn run<'a>(
        &'a self,
        call: &'static Call,
        matches: &'a ArgMatches,
        context: &'a Context,
        request: Request,
    ) -> LocalBoxFuture<'a, Result<Value, CliError>> {
        Box::pin(async move {
            // Before the call: a key that cannot be kept should not be made.
            let file = match matches.get_flag(SAVE) {
                true => Some(NewKeyFile::create(name(&request))?),
                false => None,
            };
            let mut answer = call.call(request, context).await?;
            if let (Some(file), Some(answer)) = (file, answer.as_object_mut())
                && let Some(Value::String(material)) = answer.shift_remove("KeyMaterial")
            {
                let path = file.keep(&material)?;
                terminal::say(&format_args!("The private key is in {}", path.display()));
            }
            Ok(answer)
        })
    }
}

fn name(request: &Request) -> &str {
    request.get("KeyName").and_then(Value::as_str).unwrap_or_default()
}
