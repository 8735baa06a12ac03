//! `hearthd`: the control plane's process.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use hearth_controller::inspection::{self, Attempt};
use hearth_controller::{Config, join, privileges};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes of the error that the process ends with.
const MAX_ERROR: usize = 4000;

/// The control plane of a Hearth cloud.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a token with which host agents join this cloud. It stays valid until it is revoked.
    JoinToken {
        #[arg(long, env = "HEARTH_DATA_DIR", default_value = "/var/lib/hearth/controller")]
        data_dir: PathBuf,
        /// `host:port` that agents dial, where it differs from what hearthd listens on.
        #[arg(long)]
        endpoint: Option<String>,
        /// Revoke all tokens instead. Hosts that joined stay.
        #[arg(long)]
        revoke_all: bool,
    },
    /// Shows what a disk image could do that has taken over the process that inspects it.
    ProbeInspection,
    /// Inspects the disk image that is standard input. For hearthd itself.
    #[command(name = inspection::COMMAND, hide = true)]
    InspectImage {
        /// Try this instead.
        #[arg(long)]
        attempt: Option<Attempt>,
        /// Behind the seccomp filter.
        #[arg(long, requires = "attempt")]
        filtered: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are threads.
    if let Some(Command::InspectImage { attempt, filtered }) = cli.command {
        return inspection::run(attempt.map(|attempt| (attempt, filtered)));
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people, whatever RUST_BACKTRACE says.
            let line = hearth_log::escaped(format_args!("hearthd: {error:#}"), MAX_ERROR);
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        Some(Command::JoinToken { data_dir, .. }) => privileges::continue_as_owner(data_dir)?,
        Some(Command::ProbeInspection | Command::InspectImage { .. }) => {}
        None => privileges::continue_as_owner(&cli.config.data_dir)?,
    }
    hearth_log::to_stderr("info,sqlx=warn");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?
        .block_on(execute(cli))
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        // The second is done before.
        None | Some(Command::InspectImage { .. }) => serve(cli.config).await,
        Some(Command::ProbeInspection) => inspection::probe().await,
        Some(Command::JoinToken {
            data_dir,
            revoke_all: true,
            ..
        }) => {
            let revoked = join::revoke_tokens(&data_dir).await?;
            writeln!(io::stdout(), "{revoked} tokens revoked")?;
            Ok(())
        }
        Some(Command::JoinToken {
            data_dir, endpoint, ..
        }) => {
            let token = join::make_token(&data_dir, endpoint).await?;
            writeln!(io::stdout(), "{token}")?;
            Ok(())
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = hearth_controller::start(config).await?;
    // For whoever started us and reads it; a closed pipe is no reason to stop.
    let _ = writeln!(
        io::stdout(),
        "ready socket={} agent_listen={}",
        running.socket.display(),
        running.agent_listen
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; instances go on");
    running.stop().await;
    Ok(())
}
