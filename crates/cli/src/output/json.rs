//! JSON with four spaces, as aws cli prints it.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use crate::error::CliError;

pub(crate) fn pretty(value: &impl Serialize) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("turning the answer into JSON: {e}"));
    value.serialize(&mut serializer).map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}
