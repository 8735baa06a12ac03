//! `--wait` of the calls that bring instances into another state.

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches as _};
use serde_json::{Value, json};

use super::waiters::Waiter;
use crate::context::Context;
use crate::error::CliError;

#[derive(Args)]
pub(super) struct Waiting {
    /// Waits until all instances have arrived in the state that is asked for.
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait takes at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    wait_timeout: u64,
}

/// The waiter of an operation, and the list of instances in its answer.
pub(super) fn of(operation: &str) -> Option<(&'static str, &'static str)> {
    Some(match operation {
        "RunInstances" => ("InstanceRunning", "Instances"),
        "StartInstances" => ("InstanceRunning", "StartingInstances"),
        "StopInstances" => ("InstanceStopped", "StoppingInstances"),
        "TerminateInstances" => ("InstanceTerminated", "TerminatingInstances"),
        _ => return None,
    })
}

/// Waits where the user asked for it, and puts what is then into the answer.
pub(super) async fn wait(
    (waiter, list): (&str, &str),
    matches: &ArgMatches,
    answer: &mut Value,
    context: &Context,
) -> Result<(), CliError> {
    let Waiting { wait, wait_timeout } = Waiting::from_arg_matches(matches)?;
    let Some(Value::Array(changed)) = answer.get_mut(list).filter(|_| wait) else {
        return Ok(());
    };
    let mut condition = Waiter::named(waiter)?;
    if waiter == "InstanceRunning" {
        // EC2's waiter goes on, for it may be asked before the start. This one is asked after it, so the start failed.
        condition = condition.but_not("Reservations[].Instances[].State.Name", "stopped");
    }
    let ids: Vec<Value> = changed
        .iter()
        .map(|instance| instance["InstanceId"].clone())
        .collect();
    let seen = condition
        .wait(
            json!({ "InstanceIds": ids }),
            Some(Duration::from_secs(wait_timeout)),
            context,
        )
        .await?;
    let reservations = seen["Reservations"].as_array().into_iter().flatten();
    for now in reservations.flat_map(|of| of["Instances"].as_array()).flatten() {
        for instance in changed
            .iter_mut()
            .filter(|of| of["InstanceId"] == now["InstanceId"])
        {
            match instance.get_mut("CurrentState") {
                Some(state) => *state = now["State"].clone(),
                None => *instance = now.clone(),
            }
        }
    }
    Ok(())
}
