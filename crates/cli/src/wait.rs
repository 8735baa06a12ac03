//! `--wait`: EC2's waiters over the stream of instance changes, without polling.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use hearth_api::{ApiError, Client, InstanceState, v1};
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::context::Context;
use crate::error::{CliError, one_line};
use crate::terminal;

/// Between two tries to watch again after hearthd went away.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Copy)]
pub(crate) struct Waiting {
    /// Waits until all instances have arrived in the state that is asked for, and shows the way there.
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait takes at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    wait_timeout: u64,
}

/// EC2's waiters, as botocore's `waiters-2.json` defines them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Running,
    Stopped,
    Terminated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Arrived,
    OnTheWay,
    /// The state does not lead where it is waited for.
    Impossible,
}

impl Waiter {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "InstanceRunning",
            Self::Stopped => "InstanceStopped",
            Self::Terminated => "InstanceTerminated",
        }
    }

    fn judge(self, state: InstanceState) -> Verdict {
        use InstanceState as State;
        match (self, state) {
            (Self::Running, State::Running)
            | (Self::Stopped, State::Stopped)
            | (Self::Terminated, State::Terminated) => Verdict::Arrived,
            (Self::Running, State::ShuttingDown | State::Terminated | State::Stopping)
            | (Self::Stopped, State::Pending | State::Terminated)
            | (Self::Terminated, State::Pending | State::Stopping) => Verdict::Impossible,
            // EC2's waiter goes on, for it may be asked before the start. Ours is asked after it, so the start failed.
            (Self::Running, State::Stopped) => Verdict::Impossible,
            _ => Verdict::OnTheWay,
        }
    }
}

impl Waiting {
    /// Waits where the user asked for it, and answers the instances as they were when they arrived.
    pub(crate) async fn wait(
        self,
        context: &Context,
        waiter: Waiter,
        ids: Vec<String>,
    ) -> Result<Option<HashMap<String, v1::Instance>>, CliError> {
        if !self.wait || ids.is_empty() {
            return Ok(None);
        }
        let mut client = context.client().await?;
        let at_most = Duration::from_secs(self.wait_timeout);
        wait(context, &mut client, waiter, ids, at_most).await.map(Some)
    }
}

/// Waits until all of `ids` arrived, and answers the instances as they then were.
pub(crate) async fn wait(
    context: &Context,
    client: &mut Client,
    waiter: Waiter,
    ids: Vec<String>,
    at_most: Duration,
) -> Result<HashMap<String, v1::Instance>, CliError> {
    let mut display = Display::new(&ids);
    let mut arrived = HashMap::new();
    match timeout(
        at_most,
        watch(context, client, waiter, &ids, &mut display, &mut arrived),
    )
    .await
    {
        Ok(outcome) => outcome?,
        Err(_) => {
            let missing: Vec<&str> = ids
                .iter()
                .filter(|id| !arrived.contains_key(*id))
                .map(String::as_str)
                .collect();
            let problem = format!(
                "{} did not get there in {} s",
                missing.join(", "),
                at_most.as_secs()
            );
            return Err(CliError::Waiter {
                waiter: waiter.name(),
                problem,
            });
        }
    }
    Ok(arrived)
}

async fn watch(
    context: &Context,
    client: &mut Client,
    waiter: Waiter,
    ids: &[String],
    display: &mut Display,
    arrived: &mut HashMap<String, v1::Instance>,
) -> Result<(), CliError> {
    loop {
        let request = v1::WatchInstancesRequest {
            instance_ids: ids.to_vec(),
        };
        match client.watch.watch_instances(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                // A stream that breaks off is watched again: hearthd may be restarting.
                while let Ok(Some(instance)) = stream.message().await {
                    judge(waiter, instance, display, arrived)?;
                    if ids.iter().all(|id| arrived.contains_key(id)) {
                        return Ok(());
                    }
                }
            }
            Err(status) if is_final(&status) => return context.answered("WatchInstances", Err(status)),
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Whether the service refused, and would refuse again.
fn is_final(status: &Status) -> bool {
    ApiError::from_status(status).is_some() || status.code() == tonic::Code::Unimplemented
}

fn judge(
    waiter: Waiter,
    instance: v1::Instance,
    display: &mut Display,
    arrived: &mut HashMap<String, v1::Instance>,
) -> Result<(), CliError> {
    let Some(state) = instance
        .state
        .as_ref()
        .and_then(|state| InstanceState::from_code(state.code))
    else {
        return Ok(());
    };
    let verdict = waiter.judge(state);
    display.show(&instance.instance_id, state, verdict == Verdict::Arrived);
    match verdict {
        Verdict::Arrived => {
            arrived.insert(instance.instance_id.clone(), instance);
            Ok(())
        }
        // An instance that arrived may leave again while others are waited for.
        _ if arrived.contains_key(&instance.instance_id) => Ok(()),
        Verdict::OnTheWay => Ok(()),
        Verdict::Impossible => {
            let reason = instance
                .state_reason
                .map(|r| format!(": {}", one_line(&r.message)))
                .unwrap_or_default();
            let problem = format!("{} is {state}{reason}", instance.instance_id);
            Err(CliError::Waiter {
                waiter: waiter.name(),
                problem,
            })
        }
    }
}

/// Where the instances are: spinners on a terminal, a line per change elsewhere.
struct Display {
    spinners: Option<HashMap<String, ProgressBar>>,
    last: HashMap<String, InstanceState>,
}

impl Display {
    fn new(ids: &[String]) -> Self {
        let spinners = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("{spinner} {prefix} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = |id: &String| {
                // Cleared when dropped, so that also Ctrl-C leaves a tidy screen.
                let spinner = all.add(ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear));
                spinner.set_style(style.clone());
                spinner.set_prefix(id.clone());
                spinner.enable_steady_tick(Duration::from_millis(100));
                (id.clone(), spinner)
            };
            ids.iter().map(spinner).collect()
        });
        Self {
            spinners,
            last: HashMap::new(),
        }
    }

    fn show(&mut self, id: &str, state: InstanceState, arrived: bool) {
        if self.last.insert(id.to_owned(), state) == Some(state) {
            return;
        }
        match &self.spinners {
            Some(spinners) => {
                if let Some(spinner) = spinners.get(id) {
                    spinner.set_message(state.name());
                    if arrived {
                        spinner.finish_and_clear();
                    }
                }
            }
            None => terminal::say(&format_args!("{id}: {state}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_fail_where_ec2s_do() {
        use InstanceState::*;
        let impossible = |waiter: Waiter| {
            InstanceState::ALL
                .into_iter()
                .filter(|s| waiter.judge(*s) == Verdict::Impossible)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            impossible(Waiter::Running),
            [ShuttingDown, Terminated, Stopping, Stopped]
        );
        assert_eq!(impossible(Waiter::Stopped), [Pending, Terminated]);
        assert_eq!(impossible(Waiter::Terminated), [Pending, Stopping]);
    }
}
