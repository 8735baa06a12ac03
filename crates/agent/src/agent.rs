//! The agent as a whole: its parts, put together in the right order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hearth_api::join::JoinToken;
use hearth_network::Network;
use ipnet::Ipv4Net;
use tokio::sync::mpsc;

use crate::board::Board;
use crate::capacity::Reserve;
use crate::identity::{self, Identity};
use crate::images::Images;
use crate::instance;
use crate::jail::{self, Jail};
use crate::link::Link;
use crate::networks::{self, Host, Metadata, Networks};
use crate::paths::DataDir;
use crate::session::Session;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::{checks, counters, descriptors, lock, volume};

/// The first zone of a `hearthd` that was told nothing else.
const DEFAULT_ZONE: &str = "local-1a";

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Needed once.
    pub join_token: Option<JoinToken>,
    /// `host:port`; the token's (or the enrolment's) unless said.
    pub control_plane: Option<String>,
    /// Said at enrolment; later it must be the same.
    pub availability_zone: Option<String>,
    pub reserve: Reserve,
    /// Of the data directory's file system, what images that no volume uses may take.
    pub image_cache_percent: u8,
    pub monitor: PathBuf,
    /// A named namespace instead of the one this process was started in.
    pub host_network_namespace: Option<String>,
    /// See [`hearth_network::NetworkConfig::guest_networks`].
    pub guest_networks: Vec<Ipv4Net>,
    pub stop_patience: Duration,
    pub jail: jail::Settings,
    /// No checks, no jail and no network: for tests with stand-in monitors.
    pub simulate_host: bool,
}

/// Runs until the process is told to end. Ending disturbs no instance.
///
/// # Errors
/// Only at the start: the machine is unfit, the data directory is in use, the token is refused.
pub async fn run(config: Config) -> anyhow::Result<()> {
    if config.simulate_host {
        checks::check_monitor(&config.monitor)?;
    } else {
        checks::check(&config.monitor)?;
    }
    let dir =
        DataDir::create(&config.data_dir).with_context(|| format!("making {}", config.data_dir.display()))?;
    let _lock = lock::take(&dir)?;
    descriptors::raise_limit();
    for room in [dir.images(), dir.volumes()] {
        volume::sweep_half_made(&room).context("sweeping half-made files")?;
    }
    let store = Store::open(&dir.store())?;
    let identity = identify(&config, &dir, &store).await?;

    let metadata = Arc::new(Metadata::default());
    let host = if config.simulate_host {
        Host::Simulated
    } else {
        let namespace = config.host_network_namespace.as_deref();
        let mut settings = networks::config(&dir, namespace).context("reading the IMDS key")?;
        settings.guest_networks = config.guest_networks;
        let source = Arc::clone(&metadata) as Arc<dyn hearth_network::MetadataSource>;
        Host::Real(Network::new(settings, source).await?)
    };
    let networks = Arc::new(Networks::new(host, metadata));
    let keeper = Arc::clone(&networks);
    tokio::spawn(async move { keeper.keep().await });
    tokio::spawn(counters::serve(&dir, Arc::clone(&networks)).context("opening the counters' socket")?);

    let (channel, link) = Link::new();
    let board = Board::default();
    let context = Arc::new(instance::Context {
        images: Images::new(dir.clone(), link, config.image_cache_percent),
        dir: dir.clone(),
        store,
        networks,
        board: board.clone(),
        monitor: config.monitor,
        kvm: if config.simulate_host {
            "/dev/null"
        } else {
            "/dev/kvm"
        },
        jail: (!config.simulate_host).then(|| Jail::new(&config.jail, &dir)),
        stop_patience: config.stop_patience,
    });
    let supervisor = Supervisor::start(context).await?;
    let (intents, inbox) = mpsc::channel(1);
    let host_id = identity.host_id;
    let session = Session {
        endpoint: config.control_plane.unwrap_or(identity.endpoint),
        availability_zone: config.availability_zone.unwrap_or(identity.availability_zone),
        reserve: config.reserve,
        dir,
        board,
        intents,
        channel,
    };
    let session = tokio::spawn(session.keep());
    #[allow(clippy::print_stdout)] // scripts wait for this line
    {
        println!("hearth-agent ready: {host_id} ({})", config.data_dir.display());
    }
    let supervised = tokio::spawn(supervisor.run(inbox));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = supervised => result.context("the supervisor broke down; restart the agent")?,
        result = session => result.context("the session broke down; restart the agent")?,
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

async fn identify(config: &Config, dir: &DataDir, store: &Store) -> anyhow::Result<Identity> {
    if let Some(identity) = Identity::load(dir)? {
        return Ok(identity);
    }
    // They were another host's. What runs stays, and is reported as unknown.
    store.forget_intents().await?;
    let token = config.join_token.as_ref().context(
        "this host is not enrolled: run `hearthd join-token` on the control plane's machine, and start the \
         agent once with --join-token",
    )?;
    let endpoint = config.control_plane.as_ref().unwrap_or(&token.endpoint);
    let zone = config.availability_zone.as_deref().unwrap_or(DEFAULT_ZONE);
    let identity = identity::enroll(dir, token, endpoint, zone).await?;
    tracing::info!(host = identity.host_id, "enrolled");
    Ok(identity)
}
