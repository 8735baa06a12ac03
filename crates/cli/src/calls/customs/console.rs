//! GetConsoleOutput: the text itself.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::Custom;
use crate::error::CliError;

pub(super) const CUSTOM: Custom = Custom {
    replaces: &[],
    flags: |command| command,
    prepare: |_, _| Ok(Some(Box::new(decode))),
};

fn decode(answer: &mut Value) -> Result<(), CliError> {
    if let Some(output) = answer.get_mut("Output")
        && let Some(bytes) = output.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok())
    {
        *output = String::from_utf8_lossy(&bytes).into();
    }
    Ok(())
}
