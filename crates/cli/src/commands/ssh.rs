//! `hearth ssh`: into an instance, by its id or name.

use std::time::{Duration, Instant};

use clap::Args;
use hearth_api::{Client, Id, InstanceState, Kind, v1};
use serde_json::{Map, json};

use crate::calls::waiters::Waiter;
use crate::context::Context;
use crate::error::CliError;
use crate::ssh::{Login, wait_for_banner};

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
        let mut client = context.client().await?;
        let mut instance = find(context, &mut client, &target).await?;
        let state = instance
            .state
            .as_ref()
            .and_then(|s| InstanceState::from_code(s.code));
        match (state, until) {
            (Some(InstanceState::Running), _) => {}
            (Some(InstanceState::Pending), Some(until)) => {
                let request = Map::from_iter([("InstanceIds".to_owned(), json!([instance.instance_id]))]);
                let left = until.saturating_duration_since(Instant::now());
                let waiter = Waiter::named("InstanceRunning")?;
                waiter.wait(request, Some(left), context).await?;
                instance = find(context, &mut client, &instance.instance_id).await?;
            }
            (state, _) => {
                let state = state.map_or("unknown".to_owned(), |s| s.to_string());
                let hint = match state.as_str() {
                    "stopped" => format!(
                        ": start it with `hearth start-instances --instance-ids {}`",
                        instance.instance_id
                    ),
                    "pending" => ": say --wait SECONDS to wait for it".to_owned(),
                    _ => String::new(),
                };
                return Err(CliError::Failed(format!(
                    "{} is {state}{hint}.",
                    instance.instance_id
                )));
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
async fn find(context: &Context, client: &mut Client, target: &str) -> Result<v1::Instance, CliError> {
    let mut request = v1::DescribeInstancesRequest::default();
    if Id::parse(Kind::Instance, target).is_ok() {
        request.instance_ids = vec![target.to_owned()];
    } else {
        let filter = |name: &str, values: Vec<String>| v1::Filter {
            name: name.to_owned(),
            values,
        };
        // The name as it is, not as a pattern.
        let literal = target
            .chars()
            .flat_map(|c| "*?\\".contains(c).then_some('\\').into_iter().chain([c]))
            .collect();
        let alive = ["pending", "running", "stopping", "stopped"]
            .map(str::to_owned)
            .to_vec();
        request.filters = vec![
            filter("tag:Name", vec![literal]),
            filter("instance-state-name", alive),
        ];
    }
    let answer = client.instances.describe_instances(request).await;
    let reservations = context.answered("DescribeInstances", answer)?.reservations;
    let mut found: Vec<v1::Instance> = reservations.into_iter().flat_map(|r| r.instances).collect();
    match (found.pop(), found.len()) {
        (None, _) => Err(CliError::Failed(format!(
            "No instance has the id or the Name tag '{target}'; `hearth describe-instances` tells what there is."
        ))),
        (Some(instance), 0) => Ok(instance),
        (Some(last), _) => {
            let ids: Vec<String> = found.into_iter().chain([last]).map(|i| i.instance_id).collect();
            Err(CliError::Failed(format!(
                "Several instances have the Name tag '{target}': {}.",
                ids.join(", ")
            )))
        }
    }
}
