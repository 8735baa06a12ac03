//! `hearth-agent`: the command line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use hearth_agent::agent::{self, Config};
use hearth_agent::capacity::Reserve;
use hearth_agent::counters;
use hearth_agent::firmware::Firmware;
use hearth_agent::jail::{self, uid::UidRange};
use hearth_api::join::JoinToken;
use ipnet::Ipv4Net;

/// Where `scripts/up` and the package hearth-firmware install what `images/firmware/build` makes.
const FIRMWARE: [&str; 2] = [
    "/usr/local/share/hearth/firmware.fd",
    "/usr/share/hearth/firmware.fd",
];
/// Bytes of the error that the process ends with.
const MAX_ERROR: usize = 4000;

/// Makes this host run the instances that Hearth's control plane places on it.
#[derive(Parser)]
#[command(name = "hearth-agent", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Ends every instance's monitor and removes every network of a data directory; keeps volumes and images.
    Cleanup {
        #[command(flatten)]
        place: Place,
    },
    /// Lets this host join a cloud, with a token of `hearthd join-token`; the agent is to be started then.
    Join {
        /// The token; @FILE reads it from a file, @/dev/stdin from standard input.
        #[arg(value_name = "TOKEN|@FILE")]
        token: String,
        #[arg(long, env = "HEARTH_AGENT_DATA_DIR", default_value = "/var/lib/hearth/agent")]
        data_dir: PathBuf,
        /// Where the control plane listens, if the token's is not reached from here: HOST:PORT of each hearthd, separated by
        /// commas.
        #[arg(long, env = "HEARTH_AGENT_CONTROL_PLANE", value_name = "HOST:PORT")]
        control_plane: Option<String>,
        /// The availability zone that this host is in.
        #[arg(long, value_name = "ZONE", default_value = "local-1a")]
        availability_zone: String,
    },
    /// Ends the guests of a host that shuts down by their power buttons, and waits for it. The agent has to be stopped;
    /// its next start, usually after the host's, starts them again. The unit hearth-guests.service calls this.
    ShutdownGuests {
        #[command(flatten)]
        agent: AgentArgs,
        /// Seconds that a guest has to end by itself.
        #[arg(
            long,
            env = "HEARTH_AGENT_SHUTDOWN_PATIENCE",
            default_value_t = 90,
            value_parser = clap::value_parser!(u64).range(0..=500),
            value_name = "SECONDS"
        )]
        patience: u64,
    },
    /// Writes manual pages into a directory.
    #[command(hide = true)]
    ManPages { directory: PathBuf },
    /// Shows what the DNS, IMDS and DHCP servers admitted and refused of each network interface, from the running agent.
    Counters {
        /// The running agent's.
        #[arg(long, env = "HEARTH_AGENT_DATA_DIR", default_value = "/var/lib/hearth/agent")]
        data_dir: PathBuf,
    },
}

#[derive(Args)]
struct Place {
    /// Where identity, images, volumes and records are kept.
    #[arg(long, env = "HEARTH_AGENT_DATA_DIR", default_value = "/var/lib/hearth/agent")]
    data_dir: PathBuf,
    /// The named network namespace that has the way out, instead of the one this process is started in.
    #[arg(long, env = "HEARTH_AGENT_HOST_NETWORK_NAMESPACE", value_name = "NAME")]
    host_network_namespace: Option<String>,
    /// The cgroup below the root of the hierarchy that holds every monitor's.
    #[arg(
        long,
        env = "HEARTH_AGENT_CGROUP",
        default_value = "hearth",
        value_name = "NAME"
    )]
    cgroup: String,
}

#[derive(Args)]
struct AgentArgs {
    #[command(flatten)]
    place: Place,
    /// Where the control plane listens, if not where this host was told: HOST:PORT of each hearthd, separated by commas.
    #[arg(long, env = "HEARTH_AGENT_CONTROL_PLANE", value_name = "HOST:PORT")]
    control_plane: Option<String>,
    /// vCPUs that instances may claim for each CPU of the host.
    #[arg(long, env = "HEARTH_AGENT_VCPU_OVERCOMMIT", default_value_t = 8)]
    vcpu_overcommit: u32,
    /// MiB of memory that are kept for the host itself.
    #[arg(long, env = "HEARTH_AGENT_MEMORY_RESERVE_MIB", default_value_t = 512)]
    memory_reserve_mib: u64,
    /// Bytes that volumes may claim for each byte of the disk: volumes take what was written of them. Above 1, guests can fill the
    /// disk, and those that write get errors then; with less than 5 percent free the host takes no more volumes.
    #[arg(long, env = "HEARTH_AGENT_DISK_OVERCOMMIT", default_value_t = 1, value_name = "TIMES",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    disk_overcommit: u32,
    /// Networks of the host, or behind it, that guests may reach: CIDR blocks. Without them guests reach the internet, and
    /// neither private networks (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10) nor any network that the host
    /// has a route to besides its default route.
    #[arg(
        long,
        env = "HEARTH_AGENT_GUEST_NETWORKS",
        value_delimiter = ',',
        value_name = "CIDR,..."
    )]
    guest_networks: Vec<Ipv4Net>,
    /// Percent of the data directory's file system that images may take which no volume uses. The least recently used
    /// are removed first, also when the disk lacks room for another image.
    #[arg(long, env = "HEARTH_AGENT_IMAGE_CACHE_PERCENT", default_value_t = 20, value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100))]
    image_cache_percent: u8,
    /// Seconds that a guest has to obey the power button, before it is stopped or reset without its consent.
    #[arg(
        long,
        env = "HEARTH_AGENT_STOP_PATIENCE",
        default_value_t = 120,
        value_name = "SECONDS"
    )]
    stop_patience: u64,
    /// Instances that are started at once after a restart of the host; the next ones follow when these have begun.
    #[arg(
        long,
        env = "HEARTH_AGENT_RECOVERY_STARTS",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        value_name = "NUMBER"
    )]
    recovery_starts: u16,
    /// Users that monitors run as, one for each: FIRST-LAST, numbers that nobody else uses.
    #[arg(long, env = "HEARTH_AGENT_MONITOR_UIDS", default_value = UidRange::DEFAULT, value_name = "RANGE")]
    monitor_uids: UidRange,
    /// Pin each vCPU to a CPU of the host, and keep its monitor to these CPUs.
    #[arg(long, env = "HEARTH_AGENT_PIN_VCPUS")]
    pin_vcpus: bool,
    /// The monitor program; `hearth-vmm` beside this program unless said.
    #[arg(long, env = "HEARTH_AGENT_VMM", value_name = "PATH")]
    vmm: Option<PathBuf>,
    /// The UEFI firmware, which boots images by their own boot loader where their kernel is not booted directly: the first
    /// of the files that exists. It is opened at each launch; without it, images of the boot mode uefi do not boot here.
    #[arg(long, env = "HEARTH_AGENT_FIRMWARE", value_name = "PATH", default_values = FIRMWARE, num_args = 1)]
    firmware: Vec<PathBuf>,
    /// No checks of the host, no jail and no network: for tests with a stand-in monitor.
    #[arg(long, hide = true)]
    simulate_host: bool,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people, whatever RUST_BACKTRACE says.
            let line = hearth_log::escaped(format_args!("hearth-agent: {error:#}"), MAX_ERROR);
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    // Keys of disks pass through its memory: no core dump has it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("becoming undumpable")?;
    // Few instances' work fits two threads; each thread costs memory that guests could have.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let result = runtime.block_on(run());
    // Without waiting for threads that work on files: a host that shuts down would wait with them. What they leave half
    // made is as after a SIGKILL.
    runtime.shutdown_background();
    result
}

async fn run() -> anyhow::Result<()> {
    hearth_log::to_stderr("info");
    // Two providers in one process would otherwise panic at the first handshake.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Cleanup { place }) => {
            let namespace = place.host_network_namespace.as_deref();
            hearth_agent::cleanup::cleanup(&place.data_dir, namespace, &place.cgroup).await
        }
        Some(Command::ManPages { directory }) => clap_mangen::generate_to(Cli::command(), &directory)
            .with_context(|| format!("writing manual pages to {}", directory.display())),
        Some(Command::Counters { data_dir }) => {
            let counters = counters::ask(&data_dir).await?;
            #[allow(clippy::print_stdout)] // what was asked for
            {
                println!("{}", counters::table(&counters));
            }
            Ok(())
        }
        Some(Command::Join {
            token,
            data_dir,
            control_plane,
            availability_zone,
        }) => {
            let token = join_token(&token)?;
            let host_id =
                agent::join(&data_dir, &token, control_plane.as_deref(), &availability_zone).await?;
            #[allow(clippy::print_stdout)] // what was asked for
            {
                println!("This host is {host_id}. Start its agent: systemctl start hearth-agent");
            }
            Ok(())
        }
        Some(Command::ShutdownGuests { agent, patience }) => {
            let mut config = config(agent)?;
            config.stop_patience = Duration::from_secs(patience);
            agent::shutdown_guests(config).await
        }
        None => agent::run(config(cli.agent)?).await,
    }
}

fn config(args: AgentArgs) -> anyhow::Result<Config> {
    let monitor = match args.vmm {
        Some(path) => path,
        None => std::env::current_exe()
            .context("finding this program's own path")?
            .with_file_name("hearth-vmm"),
    };
    Ok(Config {
        data_dir: args.place.data_dir,
        control_plane: args.control_plane,
        reserve: Reserve {
            vcpu_overcommit: args.vcpu_overcommit,
            memory_mib: args.memory_reserve_mib,
            disk_overcommit: args.disk_overcommit,
        },
        image_cache_percent: args.image_cache_percent,
        monitor,
        firmware: Firmware::new(args.firmware),
        jail: jail::Settings {
            uids: args.monitor_uids,
            cgroup: args.place.cgroup,
            pin_vcpus: args.pin_vcpus,
        },
        host_network_namespace: args.place.host_network_namespace,
        guest_networks: args.guest_networks,
        stop_patience: Duration::from_secs(args.stop_patience),
        recovery_starts: args.recovery_starts.into(),
        simulate_host: args.simulate_host,
    })
}

fn join_token(text: &str) -> anyhow::Result<JoinToken> {
    let text = match text.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("reading the join token from {path}"))?
        }
        None => text.to_owned(),
    };
    Ok(text.parse()?)
}
