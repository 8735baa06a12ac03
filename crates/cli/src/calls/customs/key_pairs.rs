//! CreateKeyPair: `--save`.

use clap::{ArgMatches, Args, FromArgMatches as _};
use serde_json::Value;

use super::{Custom, Finish, Request};
use crate::error::CliError;
use crate::home::NewKeyFile;
use crate::terminal;

pub(super) const CUSTOM: Custom = Custom {
    replaces: &[],
    flags: Keeping::augment_args,
    prepare,
};

#[derive(Args)]
struct Keeping {
    /// Puts the private key where `hearth ssh` finds it (~/.hearth/keys/NAME.pem) in place of printing it.
    #[arg(long)]
    save: bool,
}

fn prepare(matches: &ArgMatches, request: &mut Request) -> Result<Option<Finish>, CliError> {
    if !Keeping::from_arg_matches(matches)?.save {
        return Ok(None);
    }
    // Before the call: a key that cannot be kept should not be made.
    let name = request.get("KeyName").and_then(Value::as_str);
    let file = NewKeyFile::create(name.unwrap_or_default())?;
    Ok(Some(Box::new(|answer| {
        let material = answer
            .as_object_mut()
            .and_then(|answer| answer.shift_remove("KeyMaterial"));
        if let Some(Value::String(material)) = material {
            let path = file.keep(&material)?;
            terminal::say(&format_args!("The private key is in {}", path.display()));
        }
        Ok(())
    })))
}
