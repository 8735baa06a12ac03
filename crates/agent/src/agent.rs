//! The agent as a whole: its parts, put together in the right order.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use hearth_api::join::JoinToken;
use hearth_network::Network;
use ipnet::Ipv4Net;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::board::Board;
use crate::capacity::Reserve;
use crate::decide;
use crate::endpoints::Endpoints;
use crate::firmware::Firmware;
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
use crate::{checks, counters, descriptors, host, lock, volume};

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Each `host:port`, separated by commas; what the control plane told, unless said.
    pub control_plane: Option<String>,
    pub reserve: Reserve,
    /// Of the data directory's file system, what images that no volume uses may take.
    pub image_cache_percent: u8,
    pub monitor: PathBuf,
    pub firmware: Firmware,
    /// A named namespace instead of the one this process was started in.
    pub host_network_namespace: Option<String>,
    /// See [`hearth_network::NetworkConfig::guest_networks`].
    pub guest_networks: Vec<Ipv4Net>,
    pub stop_patience: Duration,
    /// How many instances are started at once after a restart of the host.
    pub recovery_starts: usize,
    pub jail: jail::Settings,
    /// No checks, no jail and no network: for tests with stand-in monitors.
    pub simulate_host: bool,
}

/// Runs until the process is told to end. Ending disturbs no instance.
///
/// # Errors
/// Only at the start: the machine is unfit, the data directory is in use, the host has not joined.
pub async fn run(config: Config) -> anyhow::Result<()> {
    if config.simulate_host {
        checks::check_monitor(&config.monitor)?;
    } else {
        checks::check(&config.monitor)?;
    }
    let dir = data_dir(&config.data_dir)?;
    let _lock = lock::take(&dir)?;
    descriptors::raise_limit();
    for room in [dir.images(), dir.volumes()] {
        volume::sweep_half_made(&room).context("sweeping half-made files")?;
    }
    let store = Store::open(&dir.store())?;
    let identity = Identity::load(&dir)?.context(
        "this host has not joined a cloud: run `hearthd join-token` on the control plane's machine, and `hearth-agent join \
         TOKEN` here",
    )?;

    let metadata = Arc::new(Metadata::default());
    let host = match config.simulate_host {
        true => Host::Simulated,
        false => network(&config, &dir, &metadata).await?,
    };
    let board = Board::default();
    let networks = keep_networks(host, Arc::clone(&metadata), &board);
    tokio::spawn(counters::serve(&dir, Arc::clone(&networks)).context("opening the counters' socket")?);
    let (channel, link) = Link::new();
    let for_roles = link.clone();
    let with_roles = Arc::clone(&metadata);
    tokio::spawn(async move { with_roles.roles.keep(for_roles).await });
    let context = context(&config, &dir, store, networks, link, &board, decide::Host::Up)?;
    let images = context.images.clone();
    let supervisor = Supervisor::start(context).await?;
    tokio::spawn(async move { images.resume().await });
    let (news, inbox) = mpsc::channel(1);
    let host_id = identity.host_id;
    let known = match &config.control_plane {
        Some(told) => told.split(',').map(str::to_owned).collect(),
        None => identity.endpoints,
    };
    let endpoints =
        Endpoints::new(known).context("this host does not know where the control plane is dialled")?;
    let session = Session {
        endpoints: Mutex::new(endpoints),
        is_told: config.control_plane.is_none(),
        availability_zone: identity.availability_zone,
        firmware: config.firmware,
        reserve: config.reserve,
        dir,
        board,
        metadata,
        news,
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

/// Ends the guests of a host that shuts down, by their power buttons, and returns when all have ended. The next agent
/// starts them again. The agent has ended: this does its work meanwhile.
///
/// # Errors
/// The agent still runs, or some guests did not end in time.
pub async fn shutdown_guests(config: Config) -> anyhow::Result<()> {
    /// Besides the guests' own time: for finding monitors, telling them to end, and killing them.
    const BEYOND: Duration = Duration::from_secs(30);
    if !config.data_dir.exists() {
        return Ok(());
    }
    let limit = config.stop_patience + BEYOND;
    tokio::time::timeout(limit, end_guests(config))
        .await
        .with_context(|| format!("some instances have not ended within {} s", limit.as_secs()))?
}

async fn end_guests(config: Config) -> anyhow::Result<()> {
    let dir = data_dir(&config.data_dir)?;
    let _lock = lock::take(&dir)?;
    descriptors::raise_limit();
    let store = Store::open(&dir.store())?;
    // While they end, guests are answered as before. If the network cannot be served, they end without it.
    let metadata = Arc::new(Metadata::default());
    let host = match config.simulate_host {
        true => Host::Simulated,
        false => network(&config, &dir, &metadata).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "guests end without DHCP, DNS and metadata"
            );
            Host::Simulated
        }),
    };
    let board = Board::default();
    let networks = keep_networks(host, metadata, &board);
    let (_channel, link): (watch::Sender<_>, Link) = Link::new();
    let context = context(
        &config,
        &dir,
        store,
        networks,
        link,
        &board,
        decide::Host::GoingDown,
    )?;
    let supervisor = Supervisor::start(context).await?;
    supervisor.drain().await;
    tracing::info!("all guests have ended");
    Ok(())
}

async fn network(config: &Config, dir: &DataDir, metadata: &Arc<Metadata>) -> anyhow::Result<Host> {
    let namespace = config.host_network_namespace.as_deref();
    let mut settings = networks::config(dir, namespace).context("reading the IMDS key")?;
    settings.guest_networks.clone_from(&config.guest_networks);
    let source = Arc::clone(metadata) as Arc<dyn hearth_network::MetadataSource>;
    Ok(Host::Real(Network::new(settings, source).await?))
}

fn keep_networks(host: Host, metadata: Arc<Metadata>, board: &Board) -> Arc<Networks> {
    let networks = Arc::new(Networks::new(host, metadata, board.clone()));
    let keeper = Arc::clone(&networks);
    tokio::spawn(async move { keeper.keep().await });
    networks
}

fn context(
    config: &Config,
    dir: &DataDir,
    store: Store,
    networks: Arc<Networks>,
    link: Link,
    board: &Board,
    host: decide::Host,
) -> anyhow::Result<Arc<instance::Context>> {
    Ok(Arc::new(instance::Context {
        images: Images::new(dir.clone(), link.clone(), config.image_cache_percent),
        link,
        dir: dir.clone(),
        store,
        networks,
        board: board.clone(),
        monitor: config.monitor.clone(),
        firmware: config.firmware.clone(),
        kvm: if config.simulate_host {
            "/dev/null"
        } else {
            "/dev/kvm"
        },
        jail: (!config.simulate_host).then(|| Jail::new(&config.jail, dir)),
        stop_patience: config.stop_patience,
        boot: host::boot_id().context("reading the id of this boot of the host")?,
        host,
        recovering: Arc::new(Semaphore::new(config.recovery_starts)),
    }))
}

/// Lets the host join a cloud, at the token's endpoints unless `control_plane` says others; answers its id.
///
/// # Errors
/// It has joined already, its agent runs, or the token is refused.
pub async fn join(
    directory: &Path,
    token: &JoinToken,
    control_plane: Option<&str>,
    availability_zone: &str,
) -> anyhow::Result<String> {
    let dir = data_dir(directory)?;
    let _lock = lock::take(&dir)?;
    if let Some(identity) = Identity::load(&dir)? {
        anyhow::bail!(
            "this host has joined already, as {}; to let it join anew, remove {}",
            identity.host_id,
            dir.pki().display()
        );
    }
    // They were another host's. What runs stays, and is reported as unknown.
    Store::open(&dir.store())?.forget_intents().await?;
    let known = control_plane
        .unwrap_or(&token.endpoint)
        .split(',')
        .map(str::to_owned);
    let endpoints =
        Endpoints::new(known).context("the token does not say where the control plane is dialled")?;
    let identity = identity::enroll(&dir, token, endpoints, availability_zone).await?;
    tracing::info!(host = identity.host_id, "enrolled");
    Ok(identity.host_id)
}

/// Opens or makes the data directory.
pub(crate) fn data_dir(path: &Path) -> anyhow::Result<DataDir> {
    DataDir::create(path).with_context(|| {
        let hint = if rustix::process::geteuid().is_root() {
            ""
        } else {
            " (hearth-agent wants root: run it with sudo)"
        };
        format!("opening {}{hint}", path.display())
    })
}
