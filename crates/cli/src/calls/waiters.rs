//! EC2's waiters, as botocore defines them: `hearth wait`, and what other commands wait for.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use indicatif::{ProgressBar, ProgressFinish};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use super::{Call, ask, names};
use crate::context::Context;
use crate::error::CliError;
use crate::query;

/// Between two tries. botocore waits longer, and as long in all.
const DELAY: Duration = Duration::from_secs(1);
/// Why instances are in the state in which they are.
const REASONS: &str = "Reservations[].Instances[].StateReason.Message";

/// Those for calls that there are. `model/README.md` says where they are from.
static WAITERS: LazyLock<Vec<Waiter>> = LazyLock::new(|| {
    let all: BTreeMap<String, Waiter> =
        serde_json::from_str(include_str!("../../model/waiters.json")).unwrap_or_default();
    let named = all.into_iter().map(|(name, waiter)| Waiter {
        command: names::kebab_of_pascal(&name),
        name,
        ..waiter
    });
    named.filter(|waiter| waiter.call().is_some()).collect()
});

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Waiter {
    /// `InstanceRunning`.
    #[serde(skip)]
    name: String,
    /// `instance-running`.
    #[serde(skip)]
    command: String,
    operation: String,
    /// Seconds between two tries.
    delay: u64,
    max_attempts: u64,
    acceptors: Vec<Acceptor>,
}

/// What an answer means.
#[derive(Debug, Clone, Deserialize)]
struct Acceptor {
    matcher: Matcher,
    /// JMESPath.
    #[serde(default)]
    argument: String,
    expected: Value,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Matcher {
    Path,
    PathAll,
    PathAny,
    Status,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Success,
    Failure,
    Retry,
}

/// `hearth wait`.
pub(crate) fn command() -> Command {
    let command = Command::new("wait").about("Waits until a condition holds, or fails after some minutes.");
    // The waiters are read when somebody waits.
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .defer(|command| command.subcommands(WAITERS.iter().filter_map(Waiter::clap)))
}

/// Runs `hearth wait`.
pub(crate) async fn run(matches: &ArgMatches, context: &Context) -> Result<(), CliError> {
    let (command, given) = matches.subcommand().unwrap_or(("", matches));
    let waiter = WAITERS.iter().find(|waiter| waiter.command == command);
    match waiter.and_then(|waiter| Some((waiter, waiter.call()?))) {
        Some((waiter, call)) => waiter
            .wait(call.request(given)?.into(), None, context)
            .await
            .map(drop),
        None => Err(CliError::Failed(format!("There is no waiter '{command}'."))),
    }
}

impl Waiter {
    /// Of a name such as `InstanceRunning`.
    pub(crate) fn named(name: &str) -> Result<Self, CliError> {
        let waiter = WAITERS.iter().find(|waiter| waiter.name == name).cloned();
        waiter.ok_or_else(|| CliError::Failed(format!("There is no waiter {name}.")))
    }

    /// That fails also when `expected` is found at one of the places that an expression names.
    pub(super) fn but_not(mut self, argument: &str, expected: &str) -> Self {
        self.acceptors.push(Acceptor {
            matcher: Matcher::PathAny,
            argument: argument.to_owned(),
            expected: expected.into(),
            state: State::Failure,
        });
        self
    }

    fn call(&self) -> Option<&'static Call> {
        Call::named(&names::kebab_of_pascal(&self.operation))
    }

    fn clap(&'static self) -> Option<Command> {
        let success = self.acceptors.iter().find(|of| of.state == State::Success)?;
        let until = match success.argument.as_str() {
            "" => "it succeeds".to_owned(),
            argument => format!("{argument} is {}", success.expected),
        };
        let asks = format!("Asks {} until {until}.", names::kebab_of_pascal(&self.operation));
        Some(
            self.call()?
                .with_flags(Command::new(self.command.as_str()).about(asks)),
        )
    }

    /// Asks until the condition holds, and answers what was answered then. Gives up when botocore would, unless told when.
    ///
    /// # Errors
    /// It gave up, or the condition cannot hold any more.
    pub(crate) async fn wait(
        &self,
        request: Value,
        at_most: Option<Duration>,
        context: &Context,
    ) -> Result<Value, CliError> {
        let at_most = at_most.unwrap_or(Duration::from_secs(
            self.delay * self.max_attempts.saturating_sub(1),
        ));
        let until = Instant::now() + at_most;
        let _spinner = self.spinner();
        let failed = |problem: String| CliError::Waiter {
            waiter: self.name.clone(),
            problem,
        };
        let mut exceeded = "Max attempts exceeded".to_owned();
        let mut was_answered = false;
        loop {
            let outcome = ask(&self.operation, request.clone(), context).await;
            was_answered |= outcome.is_ok();
            match self.acceptors.iter().find(|acceptor| acceptor.matches(&outcome)) {
                Some(Acceptor {
                    state: State::Success,
                    ..
                }) => return Ok(outcome.unwrap_or_default()),
                Some(acceptor) if acceptor.state == State::Failure => {
                    let reasons = reasons(&outcome.unwrap_or_default());
                    let explanation = acceptor.explanation();
                    return Err(failed(format!(
                        "Waiter encountered a terminal failure state: {explanation}{reasons}"
                    )));
                }
                Some(acceptor) => {
                    let explanation = acceptor.explanation();
                    exceeded = format!("Max attempts exceeded. Previously accepted state: {explanation}");
                }
                None => match outcome {
                    Ok(_) => {}
                    // hearthd may be restarting, or busy.
                    Err(CliError::Lost { .. } | CliError::Unreachable(_)) if was_answered => {}
                    Err(CliError::Service { code, .. })
                        if was_answered
                            && ["RequestLimitExceeded", "Unavailable"].contains(&code.as_str()) => {}
                    Err(CliError::Service { code, message, .. }) => {
                        return Err(failed(format!("An error occurred ({code}): {message}")));
                    }
                    Err(error) => return Err(error),
                },
            }
            if Instant::now() + DELAY > until {
                return Err(failed(exceeded));
            }
            sleep(DELAY).await;
        }
    }

    /// For people; cleared when dropped.
    fn spinner(&self) -> Option<ProgressBar> {
        let spinner = std::io::stderr().is_terminal().then(ProgressBar::new_spinner)?;
        let spinner = spinner
            .with_message(self.command.clone())
            .with_finish(ProgressFinish::AndClear);
        spinner.enable_steady_tick(Duration::from_millis(100));
        Some(spinner)
    }
}

fn reasons(answer: &Value) -> String {
    let found = query::compile(REASONS).and_then(|reasons| query::search(&reasons, answer));
    let found = found.unwrap_or_default();
    let reasons = found.as_array().into_iter().flatten().filter_map(Value::as_str);
    reasons.fold(String::new(), |all, reason| {
        format!("{all}; {}", crate::error::one_line(reason))
    })
}

impl Acceptor {
    fn matches(&self, outcome: &Result<Value, CliError>) -> bool {
        let found = |answer: &Value| {
            let path = query::compile(&self.argument)?;
            query::search(&path, answer)
        };
        let items = |answer| match found(answer) {
            Ok(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        match (self.matcher, outcome) {
            (Matcher::Path, Ok(answer)) => found(answer).is_ok_and(|found| found == self.expected),
            (Matcher::PathAll, Ok(answer)) => {
                let items = items(answer);
                !items.is_empty() && items.iter().all(|item| *item == self.expected)
            }
            (Matcher::PathAny, Ok(answer)) => items(answer).contains(&self.expected),
            (Matcher::Status, Ok(_)) => self.expected == 200,
            (Matcher::Error, Err(CliError::Service { code, .. })) => self.expected == *code,
            _ => false,
        }
    }

    /// As botocore says it.
    fn explanation(&self) -> String {
        let expected = match &self.expected {
            Value::String(text) => text.clone(),
            Value::Bool(true) => "True".to_owned(),
            other => other.to_string(),
        };
        let of = format!("For expression \"{}\"", self.argument);
        match self.matcher {
            Matcher::Path => format!("{of} we matched expected path: \"{expected}\""),
            Matcher::PathAll => format!("{of} all members matched expected path: \"{expected}\""),
            Matcher::PathAny => format!("{of} we matched expected path: \"{expected}\" at least once"),
            Matcher::Status => format!("Matched expected HTTP status code: {expected}"),
            Matcher::Error => format!("Matched expected service error code: {expected}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_waiters_can_be_evaluated() {
        assert!(WAITERS.iter().any(|waiter| waiter.command == "instance-running"));
        for acceptor in WAITERS.iter().flat_map(|waiter| &waiter.acceptors) {
            assert!(
                acceptor.argument.is_empty() || query::compile(&acceptor.argument).is_ok(),
                "{acceptor:?}"
            );
        }
    }
}
