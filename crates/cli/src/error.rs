//! What a command can end with, and the exit code of each, as in aws cli v2.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-returncodes.html>

use std::error::Error as _;
use std::io;

use hearth_api::ApiError;
use hearth_api::client::REQUEST_ID;
use hearth_api::endpoint::ConnectError;
use tonic::Status;

/// The command line, or the value of a parameter, cannot be understood.
pub(crate) const USAGE: u8 = 252;
/// Configuration is missing or wrong: credentials, above all.
pub(crate) const CONFIGURATION: u8 = 253;
/// The service answered with an error.
pub(crate) const SERVICE: u8 = 254;
/// Anything else.
pub(crate) const GENERAL: u8 = 255;
/// 128 + SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line, as clap says it.
    #[error("{0}")]
    Clap(#[from] clap::Error),

    #[error("Error parsing parameter '{parameter}': {problem}")]
    Parameter { parameter: String, problem: String },

    #[error("{0}")]
    Usage(String),

    #[error("{0}")]
    Configuration(String),

    #[error(
        "An error occurred ({code}) when calling the {operation} operation: {message}{}",
        told(request_id)
    )]
    Service {
        operation: &'static str,
        code: String,
        message: String,
        /// Under which the service has logged the call; empty if it does not say.
        request_id: String,
    },

    #[error("{}", refusal(.0))]
    Unreachable(#[from] ConnectError),

    /// The connection ended during a call.
    #[error("The connection to hearthd was lost during the {operation} operation: {cause}")]
    Lost { operation: &'static str, cause: String },

    #[error("{doing}: {cause}")]
    Io { doing: String, cause: io::Error },

    /// A waiter saw a state that cannot lead where it waits for, or ran out of time.
    #[error("Waiter {waiter} failed: {problem}")]
    Waiter { waiter: String, problem: String },

    #[error("{0}")]
    Failed(String),

    #[error("Interrupted.")]
    Interrupted,

    /// The reader of our output left, as `head` does.
    #[error("broken pipe")]
    BrokenPipe,
}

impl CliError {
    pub(crate) fn parameter(parameter: &str, problem: impl ToString) -> Self {
        Self::Parameter {
            parameter: parameter.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn io(doing: impl Into<String>, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Io {
                doing: doing.into(),
                cause,
            },
        }
    }

    /// The error of a call that was answered with `status`, or not at all.
    pub(crate) fn call(operation: &'static str, status: &Status) -> Self {
        let request_id = status.metadata().get(REQUEST_ID);
        let request_id = one_line(request_id.and_then(|id| id.to_str().ok()).unwrap_or_default());
        if let Some(ApiError { code, message }) = ApiError::from_status(status) {
            return Self::Service {
                operation,
                code: one_line(code.as_str()),
                message: one_line(&message),
                request_id,
            };
        }
        match status.source() {
            Some(cause) => Self::Lost {
                operation,
                cause: innermost(cause),
            },
            None => Self::Service {
                operation,
                code: format!("{:?}", status.code()),
                message: one_line(status.message()),
                request_id,
            },
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Parameter { .. } | Self::Usage(_) | Self::Clap(_) => USAGE,
            Self::Configuration(_) => CONFIGURATION,
            Self::Service { .. } => SERVICE,
            Self::Interrupted => INTERRUPTED,
            Self::Unreachable(_)
            | Self::Lost { .. }
            | Self::Io { .. }
            | Self::Waiter { .. }
            | Self::Failed(_)
            | Self::BrokenPipe => GENERAL,
        }
    }
}

fn told(request_id: &str) -> String {
    match request_id {
        "" => String::new(),
        id => format!(" (request id {id})"),
    }
}

/// Bytes of a service's sentence that are shown.
const MAX_SENTENCE: usize = 4000;

/// A sentence of the service on one line. It may repeat what others chose, such as names and tags.
pub(crate) fn one_line(sentence: &str) -> String {
    hearth_log::escaped(sentence, MAX_SENTENCE)
}

/// The sentence at the bottom of a chain of causes: transports wrap it in several layers that say nothing.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut bottom = error;
    loop {
        if let Some(error) = bottom.downcast_ref::<ConnectError>() {
            return refusal(error);
        }
        match bottom.source() {
            Some(source) => bottom = source,
            None => return bottom.to_string(),
        }
    }
}

/// The sentence of a connection that failed, with the cause where the sentence alone does not say what to do.
fn refusal(error: &ConnectError) -> String {
    match (error, error.source()) {
        (ConnectError::Io { .. } | ConnectError::Transport(_), Some(cause)) => {
            format!("{error}: {}", innermost(cause))
        }
        _ => error.to_string(),
    }
}
