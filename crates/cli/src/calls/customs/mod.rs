//! What aws customises of some calls, and what Hearth adds to them.
//! <https://github.com/aws/aws-cli/tree/v2/awscli/customizations/ec2>

use clap::{ArgMatches, Command};
use futures::future::LocalBoxFuture;
use serde_json::{Map, Value};

use super::Call;
use crate::context::Context;
use crate::error::CliError;

mod console;
mod key_pairs;
mod rules;
mod run_instances;
mod state_changes;

/// The members of a request.
type Request = Map<String, Value>;

pub(super) trait Custom: Sync {
    /// Fields of the request that have no flags of their own.
    fn replaces(&self) -> &'static [&'static str] {
        &[]
    }

    /// Adds flags.
    fn flags(&self, command: Command) -> Command {
        command
    }

    /// Makes the call with what the flags of fields say, and with what the others say; answers what is printed.
    fn run<'a>(
        &'a self,
        call: &'static Call,
        matches: &'a ArgMatches,
        context: &'a Context,
        request: Request,
    ) -> LocalBoxFuture<'a, Result<Value, CliError>>;
}

/// Of an operation.
pub(super) fn of(operation: &str) -> Option<&'static dyn Custom> {
    Some(match operation {
        "RunInstances" => &run_instances::RunInstances,
        "StartInstances" => &state_changes::START,
        "StopInstances" => &state_changes::STOP,
        "TerminateInstances" => &state_changes::TERMINATE,
        "AuthorizeSecurityGroupIngress"
        | "AuthorizeSecurityGroupEgress"
        | "RevokeSecurityGroupIngress"
        | "RevokeSecurityGroupEgress" => &rules::Rules,
        "CreateKeyPair" => &key_pairs::CreateKeyPair,
        "GetConsoleOutput" => &console::GetConsoleOutput,
        _ => return None,
    })
}

/// Of an instance, or of a change of one.
fn instance_id(of: &Value) -> String {
    let id = of.get("InstanceId").and_then(Value::as_str);
    id.unwrap_or_default().to_owned()
}
