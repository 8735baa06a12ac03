//! Puts the parts together: store, authority, listeners; and takes them apart in order.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use hearth_ec2::Face;
use hearth_repository::Repository;
use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::Layer as _;
use tower::layer::layer_fn;

use crate::app::App;
use crate::catalog::instance_types;
use crate::config::Config;
use crate::credentials::{AccessKeys, KnownRegions};
use crate::door::calls::Calls;
use crate::door::forward::Forward;
use crate::door::peers::Peers;
use crate::door::port::{Http2, Port, Services};
use crate::door::words::Words;
use crate::door::{accept, files, port, socket};
use crate::gateway::{self, Sessions};
use crate::join::{self, Issuer};
use crate::pki::{self, Authority, CallersTls};
use crate::store::bootstrap::Layout;
use crate::store::{self, Standing, Store};
use crate::views::Cloud;
use crate::{copies, credentials, janitor, leading, reconcile, scrubs, services};

/// A dead peer is noticed after about 30 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that an agent may have sent of one call, and of all its calls, before they are taken.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls at the same time on one connection to the API.
const STREAMS: u32 = 64;
/// The authority's certificate, beside the API's socket.
const CA_BUNDLE: &str = "ca.pem";
/// How long calls may take to end when the process does.
const GRACE: Duration = Duration::from_secs(5);

/// A `hearthd` that runs within this process.
#[derive(Debug)]
pub struct Running {
    /// The API's socket.
    pub socket: PathBuf,
    pub agent_listen: SocketAddr,
    pub app: Arc<App>,
    tasks: Vec<JoinHandle<()>>,
    _api_runtime: ApiRuntime,
    /// Held until the process ends.
    _lock: File,
}

/// Threads for the API alone: what callers do keeps nobody from serving agents.
#[derive(Debug)]
struct ApiRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl ApiRuntime {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("api")
            .enable_all()
            .build()
            .context("starting the API's threads")?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for ApiRuntime {
    /// Without waiting: it may be dropped where nothing may block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens the store, listens and serves.
///
/// # Errors
/// What could not be opened, and why.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    config.check()?;
    let own_types = match &config.instance_types {
        Some(file) => instance_types::read(file)?,
        None => Vec::new(),
    };
    instance_types::offer(own_types);
    // Someone else in the process may have installed it already: the same one, as no other is built in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = config.data_dir.clone();
    // Before anything is made in it.
    store::refuse_half_restored(&dir)?;
    // User data is in there: nobody else's to read.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("making {}", dir.display()))?;
    let uploads = config.uploads_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&uploads)
        .with_context(|| format!("making {}", uploads.display()))?;
    let repository = Repository::open(&config.repository())?;
    let lock = lock(&dir)?;
    let agent_listener = bind(config.agent_listen).await?;
    let agent_listen = agent_listener.local_addr()?;
    let endpoint = config.advertise.clone();
    let endpoint = endpoint.unwrap_or_else(|| join::dialled(agent_listen));
    let ec2_listener = match config.ec2_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let ec2_listen = ec2_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let store = Store::open_in(&dir, &config.database, &endpoint).await?;
    let authority = Arc::new(authority(&config, &store).await?);
    let layout = Layout::of(&config);
    let (owner_id, vault) = match leading::begin(&store, &layout, &dir).await {
        Ok(begun) => begun,
        Err(error) => {
            // Another may lead at once.
            store.close().await;
            return Err(error);
        }
    };
    credentials::write(&store.state(), &vault.root, &owner_id, &config.region, &dir)
        .context("writing the owner's access key")?;

    let shares = files::share_out()?;
    let socket = config.socket.clone();
    let api_runtime = ApiRuntime::new()?;
    let callers = {
        let _entered = api_runtime.handle.enter();
        let listener = socket::listen(&socket).context("opening the API's socket")?;
        accept::callers(listener, &shares)
    };
    // Everybody may look into that directory.
    let ca_bundle = publish_authority(&config, &authority)?;
    let app = Arc::new(App {
        cloud: Cloud {
            owner_id,
            public_pool: config.public_pool.trunc(),
        },
        join_tokens: Issuer::new(authority.fingerprint(), endpoint),
        config,
        store,
        repository,
        imports: services::Imports::default(),
        surveys: services::Surveys::default(),
        littered: AtomicBool::new(false),
        vault: Arc::new(vault),
        sessions: Arc::new(Sessions::default()),
        ending: CancellationToken::new(),
    });
    let term = match &*app.store.standing().borrow() {
        Standing::Leader(term) => Some(term.epoch),
        Standing::Follower(_) => None,
    };
    if term.is_some() {
        leading::take_over(&app).await?;
    }

    let calls = Calls::new(&app)?;
    let routes = services::routes(&app).await?;
    let peers = Peers::new(
        calls.layer(routes.clone()),
        Arc::clone(&app),
        api_runtime.handle.clone(),
    );
    let forward = Forward::new(Arc::clone(&app), Arc::clone(&authority));
    let signers = Services::new(calls.layer(forward.layer(routes.clone().prepare())));
    let agents = builder()
        // A snapshot that waits for the repository does not keep the session of its host waiting.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(peers)
        .add_routes(gateway::routes(&app, &authority))
        .serve_with_incoming_shutdown(
            accept::agents(agent_listener, pki::server_config(&authority)?, &shares),
            app.ending.clone().cancelled_owned(),
        );
    let api = builder()
        .max_concurrent_streams(STREAMS)
        .layer(layer_fn(Words))
        .layer(calls)
        .layer(forward)
        .add_routes(routes)
        .serve_with_incoming_shutdown(callers, app.ending.clone().cancelled_owned());
    let mut tasks = vec![
        tokio::spawn(async move {
            if let Err(error) = agents.await {
                tracing::error!(%error, "serving agents");
            }
        }),
        api_runtime.handle.spawn(async move {
            if let Err(error) = api.await {
                tracing::error!(%error, "serving the API");
            }
        }),
        tokio::spawn(janitor::run(Arc::clone(&app))),
        tokio::spawn(reconcile::run(Arc::clone(&app))),
        tokio::spawn(copies::run(Arc::clone(&app))),
        tokio::spawn(scrubs::run(Arc::clone(&app))),
        tokio::spawn(leading::run(Arc::clone(&app), layout, term)),
    ];
    if let Some(listener) = ec2_listener {
        let pool =
            DescriptorPool::decode(hearth_api::DESCRIPTORS).context("reading the API's descriptors")?;
        let keys = AccessKeys(Arc::clone(&app));
        let port = Port {
            face: Face::new(
                &pool,
                "hearth.v1",
                signers.clone(),
                keys.clone(),
                KnownRegions(Arc::clone(&app)),
            )?,
            grpc: signers,
            keys,
            plain_from_afar: app.config.ec2_plain_http,
        };
        let http2 = Http2 {
            streams: STREAMS,
            keepalive: KEEPALIVE,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
        };
        let accepted = {
            let _entered = api_runtime.handle.enter();
            accept::signers(listener, callers_tls(&app.config, &authority)?, &shares)
        };
        let serve = port::serve(accepted, Arc::new(port), http2, app.ending.clone());
        tasks.push(api_runtime.handle.spawn(serve));
        let bundle = ca_bundle
            .as_deref()
            .map(Path::display)
            .map(tracing::field::display);
        let address = ec2_listen.map(tracing::field::display);
        tracing::info!(address, ca_bundle = bundle, "requests that are signed are served");
    }
    let endpoints = serde_json::json!({
        "ec2_listen": ec2_listen.map(|address| address.to_string()),
        "ca_bundle": ca_bundle,
        "socket": socket,
        "agent_listen": agent_listen.to_string(),
        "pid": std::process::id(),
    });
    write_endpoints(&dir, &endpoints).context("writing endpoints.json")?;
    tracing::info!(socket = %socket.display(), %agent_listen, data_dir = %dir.display(), "hearthd is ready");
    Ok(Running {
        socket,
        agent_listen,
        app,
        tasks,
        _api_runtime: api_runtime,
        _lock: lock,
    })
}

impl Running {
    /// Ends gracefully: calls under way may finish for a while. Instances go on either way.
    pub async fn stop(self) {
        self.app.ending.cancel();
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(GRACE, task).await.is_err() {
                abort.abort();
            }
        }
        // A transaction that its database does not answer does not hold up the end.
        if tokio::time::timeout(GRACE, self.app.store.close()).await.is_err() {
            tracing::warn!("the database was not closed in order");
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %error, "removing the API's socket");
        }
    }
}

/// TLS of the port of signed requests: with the operator's certificate, or with one of the cloud's own authority.
fn callers_tls(config: &Config, authority: &Arc<Authority>) -> anyhow::Result<CallersTls> {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(chain), Some(key)) => {
            CallersTls::given(chain, key).context("reading --tls-certificate and --tls-key")
        }
        _ => CallersTls::issued(authority, &config.tls_name)
            .context("making a certificate for this machine's name and --tls-name"),
    }
}

/// The file by which clients know that port; `None`: the operator's certificate is of an authority that they know.
fn publish_authority(config: &Config, authority: &Authority) -> anyhow::Result<Option<PathBuf>> {
    if config.ec2_listen.is_none() || config.tls_certificate.is_some() {
        return Ok(None);
    }
    let path = config.socket.with_file_name(CA_BUNDLE);
    authority.publish(&path)?;
    Ok(Some(path))
}

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// The data directory's certificate authority, or that of all who share the database.
async fn authority(config: &Config, store: &Store) -> anyhow::Result<Authority> {
    let life = Duration::from_secs(config.certificate_seconds.into());
    let pki = config.data_dir.join("pki");
    if !config.database.is_sqlite() {
        let reading = || format!("reading the certificate authority in {}", config.database);
        let shared = match store.authority(None).await.with_context(reading)? {
            Some(shared) => Some(shared),
            None => {
                let own = match Authority::read(&pki)? {
                    Some(own) => own,
                    None => Authority::generate()?,
                };
                // Another may have been quicker.
                store.authority(Some(&own)).await.with_context(reading)?
            }
        };
        Authority::adopt(&pki, &shared.with_context(reading)?)?;
    }
    Ok(Authority::open(&pki, life)?)
}

/// Keeps a second `hearthd` away from the data directory; `hearthd join-token` may work beside this one.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.try_lock().with_context(|| {
        format!(
            "locking {}: does another hearthd use this directory?",
            path.display()
        )
    })?;
    Ok(file)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

/// Where this process listens, for `hearthd join-token` and scripts.
fn write_endpoints(dir: &Path, endpoints: &serde_json::Value) -> std::io::Result<()> {
    let text = format!("{endpoints:#}\n");
    pki::write_atomically(&dir.join("endpoints.json"), text.as_bytes(), 0o600)
}
