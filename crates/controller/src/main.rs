//! `hearthd`: the control plane's process.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use hearth_controller::inspection::{self, Attempt, Task};
use hearth_controller::{Config, DatabaseUrl, backup, join, privileges};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes of the error that the process ends with.
const MAX_ERROR: usize = 4000;

/// The control plane of a Hearth cloud.
#[derive(Debug, Parser)]
#[command(name = "hearthd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a token with which a host agent joins this cloud, once and within an hour unless told otherwise.
    JoinToken(JoinTokenArgs),
    /// Writes database, certificate authority and the repository of images' disks into a new directory; hearthd may run.
    Backup {
        #[arg(long, env = "HEARTH_DATA_DIR", default_value = "/var/lib/hearth/controller")]
        data_dir: PathBuf,
        #[command(flatten)]
        database: OfSqlite,
        /// Empty, or not there yet; the owner of the data directory has to be able to write it.
        directory: PathBuf,
    },
    /// Makes a data directory of a backup. What has changed since the backup is lost; join tokens of then are revoked.
    Restore {
        /// Empty, or not there yet.
        #[arg(long, env = "HEARTH_DATA_DIR", default_value = "/var/lib/hearth/controller")]
        data_dir: PathBuf,
        #[command(flatten)]
        database: OfSqlite,
        /// The backup.
        directory: PathBuf,
    },
    /// Writes manual pages into a directory.
    #[command(hide = true)]
    ManPages { directory: PathBuf },
    /// Shows what a disk image could do that has taken over the process that inspects it.
    ProbeInspection,
    /// Inspects the disk image that is standard input. For hearthd itself.
    #[command(name = inspection::COMMAND, hide = true)]
    InspectImage {
        /// Say what the file holds, which is none of a raw disk, if it is no more than so many bytes.
        #[arg(long, value_name = "BYTES", conflicts_with = "attempt")]
        unpack: Option<u64>,
        /// The disk has so many bytes; standard input has those that are asked for on standard output.
        #[arg(long, value_name = "BYTES", conflicts_with_all = ["attempt", "unpack"])]
        size: Option<u64>,
        /// Try this instead.
        #[arg(long)]
        attempt: Option<Attempt>,
        /// Behind the seccomp filter.
        #[arg(long, requires = "attempt")]
        filtered: bool,
    },
}

/// The database of a command that knows SQLite alone.
#[derive(Debug, Args)]
struct OfSqlite {
    /// The database that hearthd uses. This command is for sqlite; PostgreSQL has pg_dump and pg_restore.
    #[arg(long, env = "HEARTH_DATABASE", hide_env_values = true, value_name = "URL", default_value = DatabaseUrl::SQLITE)]
    database: DatabaseUrl,
}

impl OfSqlite {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.database.is_sqlite(),
            "the database is {}: use pg_dump and pg_restore for it, and copy the repository's directory (docs/homelab.md says how)",
            self.database
        );
        Ok(())
    }
}

#[derive(Debug, Args)]
struct JoinTokenArgs {
    #[arg(long, env = "HEARTH_DATA_DIR", default_value = "/var/lib/hearth/controller")]
    data_dir: PathBuf,
    /// `host:port` that agents dial, where it differs from what hearthd listens on.
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
    /// How long the token admits hosts: 90s, 30m, 1h; up to 720h.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires_in: jiff::SignedDuration,
    /// How many hosts may join with it; up to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    /// The token admits this host again, under its id, with a new key: for a host whose certificate has expired or whose
    /// key was lost. Certificates that it had end.
    #[arg(long, value_name = "HOST", conflicts_with = "uses")]
    host_id: Option<String>,
    /// Lists the tokens that admit hosts, instead of making one.
    #[arg(long, conflicts_with_all = ["revoke", "revoke_all"])]
    list: bool,
    /// Revokes a token, by its id or itself, instead of making one. Hosts that joined stay.
    #[arg(long, value_name = "TOKEN", conflicts_with = "revoke_all")]
    revoke: Option<String>,
    /// Revokes all tokens, instead of making one. Hosts that joined stay.
    #[arg(long)]
    revoke_all: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are threads.
    if let Some(Command::InspectImage {
        unpack,
        size,
        attempt,
        filtered,
    }) = cli.command
    {
        return inspection::run(match (unpack, attempt) {
            (Some(most), _) => Task::Unpack(most),
            (None, Some(attempt)) => Task::Try(attempt, filtered),
            (None, None) => Task::Inspect(size),
        });
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
        Some(Command::JoinToken(args)) => privileges::continue_as_owner(&args.data_dir)?,
        Some(Command::Backup { data_dir, .. }) => privileges::continue_as_owner(data_dir)?,
        Some(Command::Restore { data_dir, .. }) => privileges::continue_as_owner(data_dir)?,
        Some(Command::ProbeInspection | Command::InspectImage { .. } | Command::ManPages { .. }) => {}
        None => privileges::continue_as_owner(&cli.config.data_dir)?,
    }
    hearth_log::to_stderr("info,sqlx=warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let result = runtime.block_on(execute(cli));
    // Without waiting for threads that read a large disk: a host that shuts down would wait with them.
    runtime.shutdown_background();
    result
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        // The second is done before.
        None | Some(Command::InspectImage { .. }) => serve(cli.config).await,
        Some(Command::ProbeInspection) => inspection::probe().await,
        Some(Command::JoinToken(args)) => join_token(args).await,
        Some(Command::Backup {
            data_dir,
            database,
            directory,
        }) => {
            database.check()?;
            let images = backup::backup(&data_dir, &directory).await?;
            writeln!(
                io::stdout(),
                "{}: the database, and {images} images",
                directory.display()
            )?;
            Ok(())
        }
        Some(Command::Restore {
            data_dir,
            database,
            directory,
        }) => {
            database.check()?;
            backup::restore(&directory, &data_dir).await?;
            writeln!(io::stdout(), "{} is restored: start hearthd", data_dir.display())?;
            Ok(())
        }
        Some(Command::ManPages { directory }) => clap_mangen::generate_to(Cli::command(), &directory)
            .with_context(|| format!("writing manual pages to {}", directory.display())),
    }
}

async fn join_token(args: JoinTokenArgs) -> anyhow::Result<()> {
    let data_dir = &args.data_dir;
    let mut out = io::stdout();
    if args.list {
        for token in join::list_tokens(data_dir).await? {
            writeln!(out, "{token}")?;
        }
    } else if args.revoke_all {
        writeln!(out, "{} tokens revoked", join::revoke_all_tokens(data_dir).await?)?;
    } else if let Some(token) = args.revoke {
        join::revoke_token(data_dir, &token).await?;
        writeln!(out, "1 token revoked")?;
    } else {
        let terms = join::Terms {
            expires_in: args.expires_in,
            uses: args.uses,
            host_id: args.host_id,
        };
        writeln!(out, "{}", join::make_token(data_dir, args.endpoint, terms).await?)?;
    }
    Ok(())
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
