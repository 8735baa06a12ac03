//! `hearth ssh`: into an instance, by its id or name.

use std::time::{Duration, Instant};

use clap::Args;
use hearth_api::{Id, Kind};
use serde_json::{Value, json};

use crate::calls::ask;
use crate::calls::waiters::Waiter;
use crate::context::Context;
use crate::error::CliError;
use crate::ssh::{Login, text, wait_for_banner};

/// Logs in to an instance, or runs a command on it.
#[derive(Args)]
pub(super) struct Ssh {
    /// An instance id, or the value of a Name tag; USER@ may stand in front.
    #[arg(value_name = "INSTANCE")]
    target: String,
    /// The private key; unless told, what `create-key-pair --save` kept.
    #[arg(short, long, value_name = "FILE")]
    identity: Option<std::path::PathBuf>,
    #[arg(short, long, value_name = "NAME", default_value = "ec2-user")]
    login: String,
    /// Waits at most so long until the instance answers.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Prints the ssh command in place of running it.
    #[arg(long)]
    print: bool,
    /// What to run there.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Ssh {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (user, target) = match self.target.split_once('@') {
            Some((user, target)) => (user.to_owned(), target.to_owned()),
            None => (self.login, self.target),
        };
        let until = self
            .wait
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut instance = find(context, &target).await?;
        let id = text(&instance["InstanceId"]).to_owned();
        match (text(&instance["State"]["Name"]), until) {
            ("running", _) => {}
            ("pending", Some(until)) => {
                let left = until.saturating_duration_since(Instant::now());
                let waiter = Waiter::named("InstanceRunning")?;
                waiter
                    .wait(json!({ "InstanceIds": [id] }), Some(left), context)
                    .await?;
                instance = find(context, &id).await?;
            }
            (state, _) => {
                let hint = match state {
                    "stopped" => format!(": start it with `hearth start-instances --instance-ids {id}`"),
                    "pending" => ": say --wait SECONDS to wait for it".to_owned(),
                    _ => String::new(),
                };
                return Err(CliError::Failed(format!("{id} is {state}{hint}.")));
            }
        }
        let login = Login::new(&instance, user, self.identity, self.command)?;
        if let Some(until) = until {
            wait_for_banner(login.address(), until).await?;
        }
        if self.print {
            context.printer.write(&login.to_string())
        } else {
            Err(login.exec())
        }
    }
}

/// The instance of an id, or the only living one of a name.
async fn find(context: &Context, target: &str) -> Result<Value, CliError> {
    let request = match Id::parse(Kind::Instance, target) {
        Ok(_) => json!({ "InstanceIds": [target] }),
        Err(_) => {
            // The name as it is, not as a pattern.
            let escape = |c| "*?\\".contains(c).then_some('\\').into_iter().chain([c]);
            let literal: String = target.chars().flat_map(escape).collect();
            json!({ "Filters": [
                { "Name": "tag:Name", "Values": [literal] },
                { "Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"] },
            ] })
        }
    };
    let answer = ask("DescribeInstances", request, context).await?;
    let reservations = answer["Reservations"].as_array().into_iter().flatten();
    let found: Vec<&Value> = reservations
        .flat_map(|of| of["Instances"].as_array())
        .flatten()
        .collect();
    match found.as_slice() {
        [] => Err(CliError::Failed(format!(
            "No instance has the id or the Name tag '{target}'; `hearth describe-instances` tells what there is."
        ))),
        [instance] => Ok((*instance).clone()),
        several => {
            let ids: Vec<&str> = several
                .iter()
                .map(|instance| text(&instance["InstanceId"]))
                .collect();
            Err(CliError::Failed(format!(
                "Several instances have the Name tag '{target}': {}.",
                ids.join(", ")
            )))
        }
    }
}
