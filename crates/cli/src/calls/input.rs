//! `--cli-input-json` and `--generate-cli-skeleton`: whole requests as JSON.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::parameters::load_text;

const INPUT: &str = "cli-input-json";
const SKELETON: &str = "generate-cli-skeleton";
/// With one of them no flag is required.
pub(super) const WHOLE: [&str; 2] = [INPUT, SKELETON];

pub(super) fn flags(command: Command) -> Command {
    let input = Arg::new(INPUT)
        .long(INPUT)
        .value_name("JSON")
        .help("The request as JSON, or file://PATH of it. What other flags say comes before what it says.")
        .help_heading("Whole requests");
    let skeleton = Arg::new(SKELETON)
        .long(SKELETON)
        .value_name("input")
        .value_parser(["input"])
        .num_args(0..=1)
        .default_missing_value("input")
        .action(ArgAction::Set)
        .help("Prints a request with all that can be said in it, for --cli-input-json, and calls nothing.")
        .help_heading("Whole requests");
    command.args([input, skeleton])
}

pub(super) fn asks_for_skeleton(matches: &ArgMatches) -> bool {
    matches.contains_id(SKELETON)
}

/// The members of the request that was given as JSON.
///
/// # Errors
/// It is no structure in JSON.
pub(super) fn given(matches: &ArgMatches) -> Result<Map<String, Value>, CliError> {
    let Some(text) = matches.get_one::<String>(INPUT) else {
        return Ok(Map::new());
    };
    let parameter = format!("--{INPUT}");
    let text = load_text(&parameter, text)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(other) => Err(CliError::parameter(
            &parameter,
            format!("{other} is no structure"),
        )),
        Err(error) => Err(CliError::parameter(&parameter, format!("Invalid JSON: {error}"))),
    }
}
