//! What aws customises of some calls, and what Hearth adds to them.
//! <https://github.com/aws/aws-cli/tree/v2/awscli/customizations/ec2>

use clap::{ArgMatches, Command};
use serde_json::{Map, Value};

use crate::error::CliError;

mod console;
mod key_pairs;
mod rules;
mod run_instances;

/// The members of a request.
type Request = Map<String, Value>;
/// What is done to the answer before it is printed.
pub(super) type Finish = Box<dyn FnOnce(&mut Value) -> Result<(), CliError>>;

pub(super) struct Custom {
    /// Fields of the request that have no flags of their own.
    pub(super) replaces: &'static [&'static str],
    /// Adds flags.
    pub(super) flags: fn(Command) -> Command,
    /// Puts what these flags say into the request.
    pub(super) prepare: fn(&ArgMatches, &mut Request) -> Result<Option<Finish>, CliError>,
}

/// Of an operation.
pub(super) fn of(operation: &str) -> Option<&'static Custom> {
    Some(match operation {
        "RunInstances" => &run_instances::CUSTOM,
        "AuthorizeSecurityGroupIngress"
        | "AuthorizeSecurityGroupEgress"
        | "RevokeSecurityGroupIngress"
        | "RevokeSecurityGroupEgress" => &rules::CUSTOM,
        "CreateKeyPair" => &key_pairs::CUSTOM,
        "GetConsoleOutput" => &console::CUSTOM,
        _ => return None,
    })
}
