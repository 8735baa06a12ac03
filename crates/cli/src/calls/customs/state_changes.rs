//! StartInstances, StopInstances, TerminateInstances: `--wait`.

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use futures::future::LocalBoxFuture;
use serde_json::Value;

use super::{Call, Custom, Request, instance_id};
use crate::calls::structures;
use crate::context::Context;
use crate::error::CliError;
use crate::wait::{Waiter, Waiting};

/// A call that brings instances into a state.
pub(super) struct StateChange {
    waiter: Waiter,
    /// The answer's list.
    list: &'static str,
}

pub(super) const START: StateChange = StateChange {
    waiter: Waiter::Running,
    list: "StartingInstances",
};
pub(super) const STOP: StateChange = StateChange {
    waiter: Waiter::Stopped,
    list: "StoppingInstances",
};
pub(super) const TERMINATE: StateChange = StateChange {
    waiter: Waiter::Terminated,
    list: "TerminatingInstances",
};

impl Custom for StateChange {
    fn flags(&self, command: Command) -> Command {
        Waiting::augment_args(command)
    }

    /// What was waited for is told as the current state.
    fn run<'a>(
        &'a self,
        call: &'static Call,
        matches: &'a ArgMatches,
        context: &'a Context,
        request: Request,
    ) -> LocalBoxFuture<'a, Result<Value, CliError>> {
        Box::pin(async move {
            let waiting = Waiting::from_arg_matches(matches)?;
            let mut answer = call.call(request, context).await?;
            let Some(Value::Array(changes)) = answer.get_mut(self.list) else {
                return Ok(answer);
            };
            let ids = changes.iter().map(instance_id).collect();
            if let Some(seen) = waiting.wait(context, self.waiter, ids).await? {
                for change in changes {
                    let now = seen.get(&instance_id(change));
                    if let Some(state) = now.and_then(|now| now.state.as_ref()) {
                        change["CurrentState"] = structures::json_of(state)?;
                    }
                }
            }
            Ok(answer)
        })
    }
}
