//! A cloud for one agent: a control plane of a few lines with real mTLS, and the agent as a real process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hearth_api::agent::agent_message::Message as Up;
use hearth_api::agent::control_message::Message as Down;
use hearth_api::agent::control_plane_server::{ControlPlane, ControlPlaneServer};
use hearth_api::agent::enrollment_server::{Enrollment, EnrollmentServer};
use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::*;
use hearth_api::join::{JoinToken, SERVER_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub mod keys;
mod machines;
mod snapshots;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A file system that is soon full; gone when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        let options = format!("size={size}");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options.as_str())).ok()?;
        Some(SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Whose console, and who asks.
pub type Question = (String, oneshot::Sender<ConsoleOutput>);

/// What the test wants, and what it was told.
pub struct Cloud {
    pub intents: watch::Sender<Intents>,
    pub seen: watch::Receiver<Observation>,
    pub image: Arc<Mutex<Vec<u8>>>,
    /// How the image is told.
    pub pace: watch::Sender<Pace>,
    pub told: Arc<Mutex<Told>>,
    pub consoles: mpsc::Sender<Question>,
    pub snapshots: Arc<Mutex<snapshots::Repository>>,
    pub keys: Arc<Mutex<keys::Keys>>,
    pub hosts: Arc<Mutex<Hosts>>,
    pub token: String,
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    server: Option<tokio::task::JoinHandle<()>>,
    service: Service,
    tls: ServerTlsConfig,
    agent: Option<Child>,
    pub patience: u64,
    /// The host's boot, as its agents are told.
    boot: u32,
    /// More of the agent's.
    pub arguments: Vec<String>,
    /// Absent: its monitors are stand-ins.
    pub machines: Option<machines::Host>,
}

/// How the control plane tells the chunks of an image.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Streams tell nothing as long as it is.
    pub stream_is_held: bool,
    /// Streams break off after so many chunks.
    pub breaks_after: Option<usize>,
    /// ... without an error, as if there were no more.
    pub breaks_silently: bool,
    /// Chunks from this one on are not told one by one as long as it is.
    pub held_from: Option<u64>,
    /// Chunks from this one on cannot be read.
    pub lost_from: Option<u64>,
    /// Before a chunk is told, alone or in a stream.
    pub pause: Duration,
    /// Of what lies behind the image's bytes, which is told as the image's first chunk, every one of so many is not zeros.
    pub every: Option<usize>,
}

/// What was asked for of the image.
#[derive(Debug, Default)]
pub struct Told {
    /// The first chunk of each stream.
    pub streams: Vec<u64>,
    pub chunks: Vec<u64>,
}

/// As `hearthd` cuts them.
pub const CHUNK: usize = 512 << 10;

/// What the control plane knows of its host, and decides about it.
pub struct Hosts {
    /// How long certificates are valid from now on.
    pub life: Duration,
    /// The certificates of sessions, DER, as they began.
    pub sessions: Vec<Vec<u8>>,
    /// The public keys of enrolments, as they came.
    pub enrolled: Vec<Vec<u8>>,
    pub renewals: usize,
    /// Enrolments that are done and not answered.
    pub lost_answers: usize,
    /// Sessions end and are refused.
    pub forgotten: watch::Sender<bool>,
}

#[derive(Clone)]
struct Service {
    ca: Arc<(Issuer<'static, KeyPair>, String)>,
    secret: String,
    intents: watch::Receiver<Intents>,
    seen: watch::Sender<Observation>,
    image: Arc<Mutex<Vec<u8>>>,
    pace: watch::Receiver<Pace>,
    told: Arc<Mutex<Told>>,
    consoles: Arc<tokio::sync::Mutex<mpsc::Receiver<Question>>>,
    snapshots: Arc<Mutex<snapshots::Repository>>,
    keys: Arc<Mutex<keys::Keys>>,
    hosts: Arc<Mutex<Hosts>>,
}

impl Service {
    fn sign(&self, request: &str) -> (String, Vec<u8>) {
        let mut csr = CertificateSigningRequestParams::from_pem(request).unwrap();
        let now = SystemTime::now();
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        csr.params.not_before = now.into();
        csr.params.not_after = (now + self.hosts.lock().unwrap().life).into();
        let key = rcgen::PublicKeyData::der_bytes(&csr.public_key).to_vec();
        (csr.signed_by(&self.ca.0).unwrap().pem(), key)
    }
}

impl Cloud {
    pub async fn new() -> Cloud {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let chain = leaf.pem() + &ca.pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca.pem()))
            .client_auth_optional(true);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ca.der());
        let token = JoinToken {
            secret: "5".repeat(64),
            ca_fingerprint: hex::encode(fingerprint),
            endpoint: address.to_string(),
        };
        let (intents, wanted) = watch::channel(Intents::default());
        let (seen, observed) = watch::channel(Observation::default());
        let image = Arc::new(Mutex::new(vec![7; 1 << 20]));
        let (pace, paced) = watch::channel(Pace::default());
        let told = Arc::<Mutex<Told>>::default();
        let (consoles, console_inbox) = mpsc::channel(1);
        let hosts = Arc::new(Mutex::new(Hosts {
            life: Duration::from_secs(90 * 24 * 3600),
            sessions: Vec::new(),
            enrolled: Vec::new(),
            renewals: 0,
            lost_answers: 0,
            forgotten: watch::Sender::new(false),
        }));
        let snapshots = Arc::new(Mutex::new(snapshots::Repository::default()));
        let keys = Arc::<Mutex<keys::Keys>>::default();
        let service = Service {
            ca: Arc::new((issuer, ca.pem())),
            secret: token.secret.clone(),
            intents: wanted,
            seen,
            image: Arc::clone(&image),
            pace: paced,
            told: Arc::clone(&told),
            consoles: Arc::new(tokio::sync::Mutex::new(console_inbox)),
            snapshots: Arc::clone(&snapshots),
            keys: Arc::clone(&keys),
            hosts: Arc::clone(&hosts),
        };
        let mut cloud = Cloud {
            intents,
            seen: observed,
            image,
            pace,
            told,
            consoles,
            snapshots,
            keys,
            hosts,
            token: token.to_string(),
            dir: tempfile::tempdir().unwrap(),
            address,
            server: None,
            service,
            tls,
            agent: None,
            patience: 60,
            boot: 1,
            arguments: Vec::new(),
            machines: None,
        };
        cloud.serve(listener);
        cloud
    }

    fn serve(&mut self, listener: TcpListener) {
        // A stream that waits does not keep others of its connection waiting.
        let server = Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .tls_config(self.tls.clone())
            .unwrap()
            .add_service(EnrollmentServer::new(self.service.clone()))
            .add_service(ControlPlaneServer::new(self.service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        self.server = Some(tokio::spawn(async move {
            let _ = server.await;
        }));
    }

    /// The control plane is away, as if killed.
    pub async fn control_plane_dies(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub async fn control_plane_returns(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    pub fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    pub fn start_agent_with(&mut self, env: &[(&str, &str)]) {
        if !self.data_dir().join("pki").exists() {
            self.join();
        }
        let mut command = self.command(&[]);
        command
            .args(["--stop-patience", &self.patience.to_string()])
            .args(&self.arguments)
            .envs(env.iter().copied());
        self.agent = Some(command.spawn().unwrap());
    }

    fn join(&self) {
        let joined = Command::new(env!("CARGO_BIN_EXE_hearth-agent"))
            .args(["join", &self.token, "--data-dir"])
            .arg(self.data_dir())
            .stdout(Stdio::null())
            .stderr(self.log())
            .status()
            .unwrap();
        assert!(joined.success(), "{}", self.logged());
    }

    fn command(&self, subcommand: &[&str]) -> Command {
        let agent = Path::new(env!("CARGO_BIN_EXE_hearth-agent"));
        let mut command = Command::new(agent);
        command.args(subcommand).arg("--data-dir").arg(self.data_dir());
        match &self.machines {
            Some(host) => command
                .args(["--host-network-namespace", &host.namespace])
                .args(["--cgroup", &host.cgroup]),
            None => command
                .args(["--simulate-host", "--vmm"])
                .arg(agent.with_file_name("examples").join("fake-monitor")),
        };
        command
            .env("HEARTH_AGENT_BOOT_ID", self.boot.to_string())
            .stdout(Stdio::null())
            .stderr(self.log());
        command
    }

    /// Runs what the host runs when it shuts down.
    pub fn shutdown_guests(&self, env: &[(&str, &str)]) -> std::process::ExitStatus {
        let mut command = self.command(&["shutdown-guests"]);
        command
            .args(["--patience", &self.patience.to_string()])
            .envs(env.iter().copied());
        command.status().unwrap()
    }

    /// Ends every process of the host, and gives it another boot.
    pub fn power_cut(&mut self) {
        self.kill_agent();
        self.kill_monitors();
        self.boot += 1;
    }

    fn kill_monitors(&self) {
        let instances = std::fs::read_dir(self.data_dir().join("instances"));
        for entry in instances.into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            for pid in self.living(&id) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            while !self.living(&id).is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn log(&self) -> std::fs::File {
        let path = self.dir.path().join("agent.log");
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    /// What the agents of this cloud have logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap()
    }

    /// Waits until the control plane knows of its host what `is` wants.
    pub async fn until_host(&self, is: impl Fn(&Hosts) -> bool) {
        let waiting = async {
            while !is(&self.hosts.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("the host does not get there; its agent says\n{}", self.logged());
        }
    }

    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
            // What the next agent says counts, and not the last words of this one.
            self.service.seen.send_replace(Observation::default());
        }
    }

    /// Waits for an agent that is to die of itself.
    pub async fn agent_died(&mut self) {
        let mut agent = self.agent.take().unwrap();
        tokio::time::timeout(PATIENCE, async {
            while agent.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the agent should have died");
    }

    pub fn data_dir(&self) -> PathBuf {
        // Long on purpose: control sockets must not mind.
        self.dir
            .path()
            .join("a-data-directory-with-a-path-much-longer-than-sun_path-can-ever-hold-in-its-108-bytes")
    }

    /// Changes what is wanted, and its sequence.
    pub fn want(&self, change: impl FnOnce(&mut Vec<InstanceIntent>)) {
        self.intents.send_modify(|intents| {
            intents.sequence += 1;
            change(&mut intents.instances);
            if intents.vpcs.is_empty() {
                intents.vpcs.push(VpcIntent {
                    vpc_id: "vpc-1".to_owned(),
                    cidr_block: "172.31.0.0/16".to_owned(),
                    public_pool_cidr: "198.18.0.0/24".to_owned(),
                    ..VpcIntent::default()
                });
            }
        });
    }

    /// Changes what is wanted of volumes that no instance has.
    pub fn want_volumes(&self, volumes: Vec<VolumeIntent>) {
        self.intents.send_modify(|intents| {
            intents.sequence += 1;
            intents.volumes = volumes;
        });
    }

    /// Waits until the agent says that these volumes are erased, and no others.
    pub async fn until_erased(&mut self, volumes: &[&str]) {
        let mut watched = self.seen.clone();
        let found = watched.wait_for(|seen| seen.erased_volumes == volumes);
        assert!(
            tokio::time::timeout(PATIENCE, found).await.is_ok(),
            "the agent says {:?}",
            self.seen.borrow().erased_volumes
        );
    }

    pub fn intent(&self, id: &str, memory_mib: u64) -> InstanceIntent {
        let image = self.image.lock().unwrap();
        InstanceIntent {
            instance_id: id.to_owned(),
            desired: Desired::Running.into(),
            run: 1,
            vcpus: 1,
            memory_mib,
            volumes: vec![InstanceVolume {
                volume_id: format!("vol-of-{id}"),
                size_bytes: 8 << 20,
                image_id: "ami-1".to_owned(),
                image_size_bytes: image.len() as u64,
                delete_on_termination: true,
                has_run: false,
                attachment_epoch: 1,
                ..InstanceVolume::default()
            }],
            network_interfaces: vec![NetworkInterface {
                network_interface_id: "eni-1".to_owned(),
                vpc_id: "vpc-1".to_owned(),
                subnet_id: "subnet-1".to_owned(),
                subnet_cidr: "172.31.0.0/20".to_owned(),
                mac_address: "02:00:00:00:00:01".to_owned(),
                private_ip: "172.31.0.10".to_owned(),
                ..NetworkInterface::default()
            }],
            metadata: Some(InstanceMetadata::default()),
            ..InstanceIntent::default()
        }
    }

    /// Waits until the agent says of the instance what `is` wants to hear.
    pub async fn until(
        &mut self,
        id: &str,
        is: impl Fn(&InstanceObservation) -> bool,
    ) -> InstanceObservation {
        let mut watched = self.seen.clone();
        let found = watched.wait_for(|seen| seen.instances.iter().any(|i| i.instance_id == id && is(i)));
        let seen = match tokio::time::timeout(PATIENCE, found).await {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("{id}: the agent says {:?}", self.seen.borrow().instances),
        };
        seen.instances.into_iter().find(|i| i.instance_id == id).unwrap()
    }

    pub async fn until_phase(&mut self, id: &str, phase: Phase, run: u64) -> InstanceObservation {
        self.until(id, |seen| seen.phase() == phase && seen.run == run)
            .await
    }

    pub async fn until_unknown_to_agent(&mut self, id: &str) {
        let gone = self
            .seen
            .wait_for(|seen| seen.instances.iter().all(|i| i.instance_id != id));
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("still reported")
            .unwrap();
    }

    /// The pids that the instance's monitors wrote to its console, one per spawn.
    pub fn spawned(&self, id: &str) -> Vec<i32> {
        let console = self.data_dir().join("instances").join(id).join("console");
        let text = std::fs::read_to_string(console).unwrap_or_default();
        text.lines()
            .filter_map(|l| l.strip_prefix("pid ")?.parse().ok())
            .collect()
    }

    /// Returns once the instance's monitors were spawned `count` times, and no more often.
    pub async fn until_spawned(&self, id: &str, count: usize) {
        let all = async {
            while self.spawned(id).len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("too few monitors");
        assert_eq!(self.spawned(id).len(), count);
    }

    /// How much the agent took of what a babbling monitor said, connection by connection, once there were `count`.
    pub async fn heard(&self, id: &str, count: usize) -> Vec<u64> {
        let console = self.data_dir().join("instances").join(id).join("console");
        let all = async {
            loop {
                let text = std::fs::read_to_string(&console).unwrap_or_default();
                let bytes = text.lines().filter_map(|line| {
                    let bytes = line.strip_prefix("heard ")?.strip_suffix(" bytes")?;
                    bytes.parse().ok()
                });
                let heard: Vec<u64> = bytes.collect();
                if heard.len() >= count {
                    return heard;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("the agent listens to a line without end")
    }

    pub fn living(&self, id: &str) -> Vec<i32> {
        let alive = |pid: &i32| {
            // A zombie is dead.
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        self.spawned(id).into_iter().filter(alive).collect()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the agent's log\n{}", self.logged());
        }
        self.kill_agent();
        match self.machines {
            Some(_) => {
                let _ = self.command(&["cleanup"]).status();
            }
            None => self.kill_monitors(),
        }
    }
}

type Stream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Enrollment for Service {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.token != self.secret {
            return Err(Status::permission_denied("no such token"));
        }
        let (certificate, key) = self.sign(&request.certificate_signing_request);
        let mut hosts = self.hosts.lock().unwrap();
        hosts.enrolled.push(key);
        if hosts.lost_answers > 0 {
            hosts.lost_answers -= 1;
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(EnrollResponse {
            endpoints: Vec::new(),
            host_id: "h-00000000000000001".to_owned(),
            certificate,
            ca_certificate: self.ca.1.clone(),
        }))
    }
}

#[tonic::async_trait]
impl ControlPlane for Service {
    type SessionStream = Stream<ControlMessage>;
    type FetchImageStream = Stream<ImageChunk>;

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (certificate, _) = self.sign(&request.into_inner().certificate_signing_request);
        self.hosts.lock().unwrap().renewals += 1;
        Ok(Response::new(RenewResponse { certificate }))
    }

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let certificates = request
            .peer_certs()
            .expect("a session without a client certificate");
        let mut forgotten = {
            let mut hosts = self.hosts.lock().unwrap();
            hosts.sessions.push(certificates[0].to_vec());
            hosts.forgotten.subscribe()
        };
        let mut up = request.into_inner();
        let (down, outbox) = mpsc::channel(4);
        let service = self.clone();
        tokio::spawn(async move {
            let mut intents = service.intents.clone();
            intents.mark_changed();
            let mut consoles = service.consoles.lock().await;
            let mut forgotten = std::pin::pin!(async move {
                let _ = forgotten.wait_for(|forgotten| *forgotten).await;
            });
            let mut asked: BTreeMap<u64, oneshot::Sender<ConsoleOutput>> = BTreeMap::new();
            loop {
                let message = tokio::select! {
                    message = up.next() => match message {
                        Some(Ok(AgentMessage { message: Some(Up::Observation(seen)) })) => {
                            service.seen.send_replace(seen);
                            continue;
                        }
                        Some(Ok(AgentMessage { message: Some(Up::ConsoleOutput(output)) })) => {
                            let asker = asked.remove(&output.request_id).unwrap();
                            let _ = asker.send(output);
                            continue;
                        }
                        Some(Ok(_)) => continue,
                        _ => return,
                    },
                    changed = intents.changed() => {
                        if changed.is_err() { return }
                        Down::Intents(intents.borrow_and_update().clone())
                    }
                    () = &mut forgotten => {
                        let refused = hearth_api::fence::forgotten("h-00000000000000001");
                        let _ = down.send(Err(refused)).await;
                        return;
                    }
                    Some((instance_id, asker)) = consoles.recv() => {
                        let request_id = asked.len() as u64 + 1;
                        asked.insert(request_id, asker);
                        Down::ConsoleRequest(ConsoleRequest { request_id, instance_id })
                    }
                };
                let message = ControlMessage {
                    message: Some(message),
                };
                if down.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }

    async fn fetch_chunk(&self, request: Request<FetchChunkRequest>) -> Result<Response<ImageChunk>, Status> {
        let index = request.into_inner().index;
        self.told.lock().unwrap().chunks.push(index);
        let mut pace = self.pace.clone();
        let is_told = |pace: &Pace| pace.held_from.is_none_or(|from| index < from);
        let pace = pace.wait_for(is_told).await.map(|pace| pace.clone());
        let pace = pace.map_err(|_| Status::unavailable("the test is over"))?;
        tokio::time::sleep(pace.pause).await;
        if pace.lost_from.is_some_and(|from| index >= from) {
            return Err(Status::data_loss("the chunk cannot be read"));
        }
        let image = self.image.lock().unwrap();
        let is_filled = |every: usize| (index as usize).is_multiple_of(every);
        let data = match image.chunks(CHUNK).nth(index as usize) {
            Some(data) => data,
            None if pace.every.is_some_and(is_filled) => &image[..CHUNK],
            None => &[],
        };
        let is_zero = data.iter().all(|byte| *byte == 0);
        Ok(Response::new(ImageChunk {
            offset: index * CHUNK as u64,
            data: if is_zero { Vec::new() } else { data.to_vec() }.into(),
        }))
    }

    async fn store_snapshot(
        &self,
        parts: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<StoreSnapshotResponse>, Status> {
        self.store(parts.into_inner()).await
    }

    async fn fetch_credentials(
        &self,
        _: Request<FetchCredentialsRequest>,
    ) -> Result<Response<RoleCredentials>, Status> {
        Err(Status::not_found("there are no roles"))
    }

    async fn fetch_key(&self, request: Request<FetchKeyRequest>) -> Result<Response<DiskKey>, Status> {
        self.keys.lock().unwrap().give(&request.into_inner().id)
    }

    async fn fetch_image(
        &self,
        request: Request<FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        let first = request.into_inner().first_chunk as usize;
        self.told.lock().unwrap().streams.push(first as u64);
        let (sender, chunks) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let image = service.image.lock().unwrap().clone();
            let (mut pace, mut told) = (service.pace.clone(), 0);
            let chunks = image.chunks(CHUNK).enumerate().skip(first);
            for (index, data) in chunks.filter(|(_, data)| data.iter().any(|byte| *byte != 0)) {
                let Ok(pace) = pace
                    .wait_for(|pace| !pace.stream_is_held)
                    .await
                    .map(|it| it.clone())
                else {
                    return;
                };
                tokio::time::sleep(pace.pause).await;
                let breaks = pace.breaks_after == Some(told);
                if breaks && pace.breaks_silently {
                    return;
                }
                let chunk = match breaks {
                    true => Err(Status::unavailable("the stream breaks off")),
                    false => Ok(ImageChunk {
                        offset: (index * CHUNK) as u64,
                        data: data.to_vec().into(),
                    }),
                };
                let is_over = chunk.is_err();
                if sender.send(chunk).await.is_err() || is_over {
                    return;
                }
                told += 1;
            }
            // The end is not told either.
            let _ = pace.wait_for(|pace| !pace.stream_is_held).await;
            let end = ImageChunk {
                offset: image.len() as u64,
                ..ImageChunk::default()
            };
            // The agent may have enough.
            let _ = sender.send(Ok(end)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }
}
