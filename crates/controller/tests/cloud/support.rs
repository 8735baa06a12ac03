//! A real `hearthd` process in a directory of its own, and a host agent that only pretends to run instances.

use futures::TryStreamExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::control_plane_client::ControlPlaneClient;
use hearth_api::agent::enrollment_client::EnrollmentClient;
use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::agent::{
    AgentMessage, Capacity, ConsoleOutput, ControlMessage, EnrollRequest, EnrollResponse, Hello,
    InstanceIntent, InstanceObservation, InstanceVolume, Intents, KeyTaken, Observation, RenewRequest,
    Repair, RunEnd, SnapshotBegin, SnapshotChunk, SnapshotObservation, SnapshotPart, StorageReport,
    StorageRequest, VolumeObservation, VolumeStorage, agent_message, control_message, snapshot_observation,
    snapshot_part, volume_intent, volume_observation,
};
use hearth_api::join::{JoinToken, LEADER, SERVER_NAME};
use hearth_api::v1::upload_image_request::{Chunk, Parameters, Part};
use hearth_api::{ApiError, Client, deltas, v1};
use hearth_repository::{CHUNK, Repository};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

use crate::weed;

/// For whatever must happen, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(30);

pub const ZONE: &str = "local-1a";

/// Names the variable with the server in whose bucket every repository is, which has no other place.
pub const ENDPOINT: &str = "HEARTH_TEST_S3";

pub const ROOT_DEVICE: &str = "/dev/vda";

pub struct Hearthd {
    pub dir: TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
    agent_listen: String,
    /// Descriptors that it may have.
    files: Option<u32>,
    /// Where its repository is, if that is no directory.
    bucket: Option<Bucket>,
}

/// A place of its own in the bucket of a server.
#[derive(Clone)]
struct Bucket {
    endpoint: String,
    prefix: String,
}

impl Bucket {
    fn at(endpoint: &str, dir: &TempDir) -> Self {
        let name = dir.path().file_name().unwrap();
        Self {
            endpoint: endpoint.to_owned(),
            prefix: name.to_str().unwrap().to_owned(),
        }
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        weed::bucket(&self.endpoint, &self.prefix)
    }
}

impl Hearthd {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        Self::limited(arguments, None)
    }

    /// With a limit of descriptors.
    pub fn with_files(files: u32) -> Self {
        Self::limited(&["--ec2-listen", "127.0.0.1:0"], Some(files))
    }

    /// On the database of another, whose key of seals it has.
    pub fn beside(other: &Self, arguments: &[&str]) -> Self {
        let mut hearthd = Self::unborn(arguments, None);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(hearthd.data())
            .unwrap();
        std::fs::copy(other.data().join("seal.key"), hearthd.data().join("seal.key")).unwrap();
        hearthd.spawn();
        hearthd
    }

    fn limited(arguments: &[&str], files: Option<u32>) -> Self {
        let mut hearthd = Self::unborn(arguments, files);
        hearthd.spawn();
        hearthd
    }

    /// With its repository in a bucket of a server.
    pub fn storing_at(endpoint: &str) -> Self {
        let mut hearthd = Self::unborn(&[], None);
        hearthd.bucket = Some(Bucket::at(endpoint, &hearthd.dir));
        hearthd.spawn();
        hearthd
    }

    fn unborn(arguments: &[&str], files: Option<u32>) -> Self {
        let endpoint = std::env::var(ENDPOINT).ok();
        let endpoint = endpoint.filter(|_| !arguments.contains(&"--repository"));
        let dir = TempDir::with_prefix("hearthd-").unwrap();
        Self {
            bucket: endpoint.map(|endpoint| Bucket::at(&endpoint, &dir)),
            dir,
            child: None,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            agent_listen: "127.0.0.1:0".into(),
            files,
        }
    }

    /// Another cloud that has its repository where `other` has it. It does not start; answers what it says.
    pub fn refused_beside(other: &Self) -> String {
        let mut hearthd = Self::unborn(&[], None);
        hearthd.bucket = other.bucket.clone();
        let ended = hearthd.launch().wait().unwrap();
        assert!(!ended.success(), "{}", hearthd.log());
        hearthd.log()
    }

    /// Where it was before.
    pub fn spawn(&mut self) {
        let mut child = self.launch();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("ready"), "{}", self.log());
        let value = |word: Option<&str>| word.unwrap().split_once('=').unwrap().1.to_owned();
        assert_eq!(value(words.next()), self.socket().to_str().unwrap());
        self.agent_listen = value(words.next());
        self.child = Some(child);
    }

    fn launch(&self) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let hearthd = env!("CARGO_BIN_EXE_hearthd");
        let mut command = Command::new("setpriv");
        // It does not outlive a test that is killed.
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(files) = self.files {
            command.arg("prlimit").arg(format!("--nofile={files}:{files}"));
        }
        if let Some(Bucket { endpoint, .. }) = &self.bucket {
            command
                .env("AWS_ENDPOINT_URL_S3", endpoint)
                .env("AWS_ACCESS_KEY_ID", weed::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", weed::SECRET_KEY);
        }
        command.arg(hearthd);
        if let Some(Bucket { prefix, .. }) = &self.bucket {
            command.args(["--repository", &format!("s3://{}/{prefix}", weed::BUCKET)]);
        }
        command
            // Tests call as often as they like; those of the rate say which.
            .env("HEARTH_REQUEST_RATE_PERCENT", "0")
            .arg("--data-dir")
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .args(["--agent-listen", &self.agent_listen])
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; answers whether it ended well.
    pub fn terminate(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        child.wait().unwrap().success()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Snapshots in the repository, and disks that are being uploaded.
    pub fn images(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.uploads()).unwrap();
        let uploads = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        self.objects("snapshots").into_iter().chain(uploads).collect()
    }

    pub fn uploads(&self) -> PathBuf {
        match self.bucket {
            Some(_) => self.data().join("uploads"),
            None => self.data().join("repository/uploads"),
        }
    }

    pub fn repository(&self) -> Repository {
        match &self.bucket {
            Some(bucket) => Repository::new(bucket.store()),
            None => Repository::in_directory(&self.data().join("repository")).unwrap(),
        }
    }

    /// How many objects are in a room of the repository.
    pub fn stored(&self, room: &str) -> usize {
        self.objects(room).len()
    }

    /// The last parts of the names of the objects in a room of the repository, in their order.
    pub fn objects(&self, room: &str) -> Vec<String> {
        let store: Arc<dyn ObjectStore> = match &self.bucket {
            Some(bucket) => bucket.store(),
            None => Arc::new(LocalFileSystem::new_with_prefix(self.data().join("repository")).unwrap()),
        };
        let room = object_store::path::Path::from(room);
        // Some tests look while they block.
        let listed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let all = store.list(Some(&room)).try_collect::<Vec<_>>();
            runtime.unwrap().block_on(all).unwrap()
        });
        let mut names: Vec<String> = listed
            .join()
            .unwrap()
            .into_iter()
            .map(|object| object.location.filename().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The disk of the only image that there is.
    pub async fn only_disk(&self) -> Vec<u8> {
        let repository = self.repository();
        let names = repository.snapshots().await.unwrap();
        let [name] = &names[..] else { panic!("{names:?}") };
        let reader = repository.read(name, None).await.unwrap();
        let mut disk = vec![0; usize::try_from(reader.snapshot().size).unwrap()];
        for (index, part) in disk.chunks_mut(CHUNK).enumerate() {
            if let Some(chunk) = reader.chunk(index as u64).await.unwrap() {
                part.copy_from_slice(&chunk[..part.len()]);
            }
        }
        disk
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub fn agent_listen(&self) -> &str {
        &self.agent_listen
    }

    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.endpoint()).await.unwrap()
    }

    pub fn join_token(&self) -> JoinToken {
        self.join_tokens(&[]).parse().unwrap()
    }

    /// What `hearthd join-token` prints.
    pub fn join_tokens(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_hearthd"))
            .arg("join-token")
            .arg("--data-dir")
            .arg(self.data())
            .args(arguments)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "join-token {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn control_plane(&self, identity: Option<Identity>) -> ControlPlaneClient<Channel> {
        ControlPlaneClient::new(self.agent_channel(identity).await.unwrap())
    }

    /// A connection as agents make it.
    pub async fn agent_channel(
        &self,
        identity: Option<Identity>,
    ) -> Result<Channel, tonic::transport::Error> {
        self.door().channel(identity).await
    }

    /// Where agents get in.
    pub fn door(&self) -> Door {
        Door {
            address: self.agent_listen.clone(),
            authority: std::fs::read_to_string(self.data().join("pki/ca.pem")).unwrap(),
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

/// The port that agents dial.
#[derive(Clone)]
pub struct Door {
    pub address: String,
    authority: String,
}

impl Door {
    pub async fn channel(&self, identity: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
        let begin = self.authority.find("-----BEGIN CERTIFICATE").unwrap();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority[begin..]))
            .domain_name(SERVER_NAME);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint
            .tls_config(tls)
            .unwrap()
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .connect()
            .await
    }
}

impl Drop for Hearthd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- hearthd's log\n{}", self.log());
        }
    }
}

/// A host's identity.
#[derive(Clone)]
pub struct Host {
    pub id: String,
    certificate: String,
    key: String,
    pub capacity: Capacity,
    pub uefi: bool,
}

impl Host {
    pub async fn enroll(hearthd: &Hearthd) -> Self {
        let token = hearthd.join_token();
        let (key, answer) = enroll(hearthd, &token.secret, ZONE).await.unwrap();
        Self::new(answer.host_id, answer.certificate, key)
    }

    pub fn new(id: String, certificate: String, key: String) -> Self {
        Self {
            id,
            certificate,
            key,
            capacity: Capacity {
                vcpus: 64,
                memory_mib: 65_536,
                disk_bytes: 1 << 40,
                cpus: 2,
            },
            uefi: false,
        }
    }

    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }

    /// The same host with a new key and a certificate for it, as an agent renews it.
    pub async fn renewed(&self, hearthd: &Hearthd) -> Result<Self, Status> {
        let (key, certificate_signing_request) = key_and_request();
        let mut client = hearthd.control_plane(Some(self.identity())).await;
        let request = RenewRequest {
            certificate_signing_request,
        };
        let certificate = client.renew(request).await?.into_inner().certificate;
        Ok(Self::new(self.id.clone(), certificate, key))
    }

    pub async fn connect(&self, hearthd: &Hearthd) -> Session {
        self.try_connect(hearthd).await.unwrap()
    }

    /// A session; or why there is none.
    pub async fn try_connect(&self, hearthd: &Hearthd) -> Result<Session, Status> {
        self.enter(&hearthd.door()).await
    }

    /// Keeps a session with whoever leads among several `hearthd`, and makes everything so, until the task is aborted.
    pub fn keep(&self, doors: Vec<Door>) -> tokio::task::JoinHandle<()> {
        let host = self.clone();
        tokio::spawn(async move {
            let mut next: Option<String> = None;
            for turn in 0.. {
                let door = match next.take() {
                    Some(leader) => doors.iter().find(|door| door.address == leader).unwrap(),
                    None => &doors[turn % doors.len()],
                };
                match host.enter(door).await {
                    Ok(session) => {
                        let _ = session.obey().await;
                    }
                    Err(status) => {
                        let leader = status.metadata().get(LEADER);
                        next = leader.map(|leader| leader.to_str().unwrap().to_owned());
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }

    pub async fn enter(&self, door: &Door) -> Result<Session, Status> {
        let channel = door.channel(Some(self.identity())).await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let mut client = ControlPlaneClient::new(channel);
        let (up, messages) = mpsc::channel(16);
        let hello = agent_message::Message::Hello(Hello {
            agent_version: "test".into(),
            availability_zone: ZONE.into(),
            hostname: "test-host".into(),
            capacity: Some(self.capacity),
            uefi: self.uefi,
        });
        up.send(message(hello)).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut down = client.session(stream).await?.into_inner();
        // The answer's headers come before hearthd has read Hello; intents come once the host is connected.
        let first = tokio::time::timeout(SOON, down.message())
            .await
            .expect("no intents came");
        Ok(Session {
            up,
            down,
            kept: Intents::default(),
            acknowledges: true,
            erases: false,
            freezes: false,
            client,
            first: Some(first),
        })
    }
}

pub async fn enroll(hearthd: &Hearthd, token: &str, zone: &str) -> Result<(String, EnrollResponse), Status> {
    enroll_at(&hearthd.door(), token, zone).await
}

/// As [`enroll`], where agents dial.
pub async fn enroll_at(door: &Door, token: &str, zone: &str) -> Result<(String, EnrollResponse), Status> {
    let (key, certificate_signing_request) = key_and_request();
    let request = EnrollRequest {
        token: token.into(),
        certificate_signing_request,
        availability_zone: zone.into(),
    };
    let channel = door.channel(None).await.unwrap();
    let answer = EnrollmentClient::new(channel).enroll(request).await?.into_inner();
    Ok((key, answer))
}

pub async fn enroll_as(hearthd: &Hearthd, request: EnrollRequest) -> Result<EnrollResponse, Status> {
    let channel = hearthd.agent_channel(None).await.unwrap();
    Ok(EnrollmentClient::new(channel).enroll(request).await?.into_inner())
}

/// A new key, and the request for a certificate of it.
pub fn key_and_request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    (key.serialize_pem(), request.pem().unwrap())
}

fn message(message: agent_message::Message) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

pub struct Session {
    pub up: mpsc::Sender<AgentMessage>,
    down: Streaming<ControlMessage>,
    /// What the host keeps: observations acknowledge it.
    kept: Intents,
    /// Whether it acknowledges intents as they come.
    pub acknowledges: bool,
    /// Whether it erases volumes as it is told.
    pub erases: bool,
    /// Whether it says that the points in time of snapshots have come.
    pub freezes: bool,
    /// For calls beside the session.
    pub client: ControlPlaneClient<Channel>,
    /// What came down while connecting.
    first: Option<Result<Option<ControlMessage>, Status>>,
}

impl Session {
    /// The next message. Changes come as all intents that they lead to.
    async fn message(&mut self) -> Result<Option<ControlMessage>, Status> {
        use control_message::Message;
        let message = match self.first.take() {
            Some(first) => first,
            None => self.down.message().await,
        };
        let Some(down) = message? else { return Ok(None) };
        match down.message {
            Some(Message::Intents(intents)) => self.kept = intents,
            Some(Message::Delta(delta)) => deltas::apply(&mut self.kept, delta).unwrap(),
            other => return Ok(Some(ControlMessage { message: other })),
        }
        if self.acknowledges {
            // The session may be over.
            let _ = self.up.send(self.observation(Vec::new())).await;
        }
        Ok(Some(ControlMessage {
            message: Some(Message::Intents(self.kept.clone())),
        }))
    }

    fn observation(&self, instances: Vec<InstanceObservation>) -> AgentMessage {
        let volumes = self.kept.volumes.iter().filter(|_| self.erases);
        let erased = volumes.filter(|volume| volume.desired() == volume_intent::Desired::Erased);
        let erased = erased.map(|volume| volume.volume_id.clone());
        message(agent_message::Message::Observation(Observation {
            intents_sequence: self.kept.sequence,
            intents_epoch: self.kept.epoch.clone(),
            instances,
            capacity: None,
            erased_volumes: erased.collect(),
            snapshots: self.frozen(),
            repairs: Vec::new(),
        }))
    }

    /// What the host keeps.
    pub fn kept(&self) -> &Intents {
        &self.kept
    }

    fn frozen(&self) -> Vec<SnapshotObservation> {
        let frozen = self.kept.snapshots.iter().filter(|_| self.freezes);
        let told = frozen.map(|snapshot| SnapshotObservation {
            snapshot_id: snapshot.snapshot_id.clone(),
            state: snapshot_observation::State::Frozen.into(),
            message: String::new(),
        });
        told.collect()
    }

    /// Says something of a snapshot.
    pub async fn observe_snapshot(&self, id: &str, state: snapshot_observation::State, message: &str) {
        let mut said = self.observation(Vec::new());
        if let Some(agent_message::Message::Observation(observation)) = &mut said.message {
            observation.snapshots = vec![SnapshotObservation {
                snapshot_id: id.to_owned(),
                state: state.into(),
                message: message.to_owned(),
            }];
        }
        let _ = self.up.send(said).await;
    }

    pub async fn next(&mut self) -> Result<control_message::Message, Status> {
        let next = tokio::time::timeout(SOON, self.message())
            .await
            .expect("nothing came down");
        Ok(next?.expect("the session ended").message.unwrap())
    }

    /// Why the session ends; intents that come before do not matter.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    pub async fn intents(&mut self) -> Intents {
        loop {
            if let control_message::Message::Intents(intents) = self.next().await.unwrap() {
                return intents;
            }
        }
    }

    /// Reads intents until some are as expected.
    pub async fn intents_when(&mut self, expected: impl Fn(&Intents) -> bool) -> Intents {
        loop {
            let intents = self.intents().await;
            if expected(&intents) {
                return intents;
            }
        }
    }

    pub async fn observe(&self, instances: Vec<InstanceObservation>) {
        // Whoever reads what comes down learns that the session has ended.
        let _ = self.up.send(self.observation(instances)).await;
    }

    /// Says of volumes that they are erased, whatever was asked for.
    pub async fn claim_erased(&self, volumes: Vec<String>) {
        let mut said = self.observation(Vec::new());
        if let Some(agent_message::Message::Observation(observation)) = &mut said.message {
            observation.erased_volumes = volumes;
        }
        let _ = self.up.send(said).await;
    }

    /// Says what was mended on the host.
    pub async fn report_repairs(&self, repairs: Vec<Repair>) {
        let mut said = self.observation(Vec::new());
        if let Some(agent_message::Message::Observation(observation)) = &mut said.message {
            observation.repairs = repairs;
        }
        let _ = self.up.send(said).await;
    }

    /// Makes everything so at once, until the session ends.
    pub fn obey(mut self) -> tokio::task::JoinHandle<()> {
        (self.erases, self.freezes) = (true, true);
        let mut stored = BTreeSet::new();
        let mut sizes = BTreeMap::new();
        tokio::spawn(async move {
            while let Ok(Some(down)) = self.message().await {
                match down.message {
                    Some(control_message::Message::Intents(intents)) => {
                        let seen = intents.instances.iter().map(obeyed).collect();
                        self.observe(seen).await;
                        let volumes = intents.instances.iter().flat_map(|intent| &intent.volumes);
                        sizes.extend(volumes.map(|volume| (volume.volume_id.clone(), volume.size_bytes)));
                        for wanted in intents.snapshots {
                            if !stored.insert(wanted.snapshot_id.clone()) {
                                continue;
                            }
                            let client = self.client.clone();
                            // No volume is smaller.
                            let size = sizes.get(&wanted.volume_id).copied().unwrap_or(1 << 30);
                            let whole = vec![(0, wanted.volume_id.into_bytes())];
                            tokio::spawn(async move {
                                // It may have been given up meanwhile.
                                let _ = store(client, begin(&wanted.snapshot_id, size, ""), whole).await;
                            });
                        }
                    }
                    Some(control_message::Message::Endpoints(_)) => {}
                    Some(control_message::Message::ConsoleRequest(request)) => {
                        let output = agent_message::Message::ConsoleOutput(ConsoleOutput {
                            request_id: request.request_id,
                            output: format!("hello from {}", request.instance_id).into_bytes(),
                            written_at: 1_700_000_000_000,
                            error: String::new(),
                        });
                        self.up.send(message(output)).await.unwrap();
                    }
                    Some(control_message::Message::StorageRequest(request)) => {
                        let report = agent_message::Message::StorageReport(storage(&request));
                        self.up.send(message(report)).await.unwrap();
                    }
                    Some(control_message::Message::SshPublicKey(key)) => {
                        let taken = agent_message::Message::KeyTaken(KeyTaken {
                            request_id: key.request_id,
                            error: String::new(),
                        });
                        self.up.send(message(taken)).await.unwrap();
                    }
                    Some(control_message::Message::Delta(_)) | None => {}
                }
            }
        })
    }
}

/// What a host's disk holds: of each volume that is asked for the same.
fn storage(request: &StorageRequest) -> StorageReport {
    let volume = |id: &String| VolumeStorage {
        volume_id: id.clone(),
        allocated_bytes: 3 << 20,
        written_bytes: 1 << 20,
        shared_bytes: 5 << 20,
    };
    StorageReport {
        request_id: request.request_id,
        error: String::new(),
        total_bytes: 100 << 30,
        free_bytes: 90 << 30,
        volume_bytes: 4 << 30,
        base_bytes: 2 << 30,
        instance_store_bytes: 1 << 30,
        overcommit: 2,
        volumes: request.volume_ids.iter().map(volume).collect(),
    }
}

/// The beginning of a snapshot that is told as changes of a base.
pub fn begin(snapshot_id: &str, size_bytes: u64, base_id: &str) -> SnapshotBegin {
    SnapshotBegin {
        snapshot_id: snapshot_id.to_owned(),
        size_bytes,
        base_id: base_id.to_owned(),
        chunks: 0,
    }
}

/// Stores a snapshot of which these chunks are told, each filled up with zeros.
pub async fn store(
    mut client: ControlPlaneClient<Channel>,
    mut begin: SnapshotBegin,
    chunks: Vec<(u64, Vec<u8>)>,
) -> Result<(), Status> {
    begin.chunks = chunks.len() as u64;
    client
        .store_snapshot(tokio_stream::iter(parts(begin, chunks)))
        .await
        .map(|_| ())
}

pub fn parts(begin: SnapshotBegin, chunks: Vec<(u64, Vec<u8>)>) -> Vec<SnapshotPart> {
    let chunks = chunks.into_iter().map(|(index, mut data)| {
        if !data.is_empty() {
            data.resize(CHUNK, 0);
        }
        snapshot_part::Part::Chunk(SnapshotChunk { index, data })
    });
    let begin = std::iter::once(snapshot_part::Part::Begin(begin));
    begin
        .chain(chunks)
        .map(|part| SnapshotPart { part: Some(part) })
        .collect()
}

fn obeyed(intent: &InstanceIntent) -> InstanceObservation {
    match intent.desired() {
        Desired::Running | Desired::Unspecified => seen(intent, Phase::Running),
        Desired::Stopped => ended(intent, Cause::Requested),
        Desired::Terminated => seen(intent, Phase::Gone),
    }
}

/// All instances that a caller sees.
pub async fn instances(client: &Client) -> Vec<v1::Instance> {
    let request = v1::DescribeInstancesRequest::default();
    let answer = client.clone().instances.describe_instances(request).await;
    let reservations = answer.unwrap().into_inner().reservations.into_iter();
    reservations
        .flat_map(|reservation| reservation.instances)
        .collect()
}

pub fn seen(intent: &InstanceIntent, phase: Phase) -> InstanceObservation {
    InstanceObservation {
        instance_id: intent.instance_id.clone(),
        phase: phase.into(),
        run: intent.run,
        end: None,
        start_micros: 1000,
        reboot: intent.reboot,
        recoveries: 0,
        boot_mode: 0,
        volumes: volumes_as_wanted(intent),
    }
}

/// What a good host says of the volumes of a running instance, other than the root volume.
fn volumes_as_wanted(intent: &InstanceIntent) -> Vec<VolumeObservation> {
    let others = intent
        .volumes
        .iter()
        .filter(|volume| volume.device_name != ROOT_DEVICE);
    others.map(volume_as_wanted).collect()
}

/// Each volume is given to the guest at once, and taken away at once.
pub fn volume_as_wanted(volume: &InstanceVolume) -> VolumeObservation {
    let (state, size_bytes) = match volume.detaching {
        true => (volume_observation::State::Detached, 0),
        false => (volume_observation::State::Attached, volume.size_bytes),
    };
    VolumeObservation {
        volume_id: volume.volume_id.clone(),
        attachment_epoch: volume.attachment_epoch,
        state: state.into(),
        size_bytes,
        message: String::new(),
    }
}

pub fn ended(intent: &InstanceIntent, cause: Cause) -> InstanceObservation {
    InstanceObservation {
        end: Some(RunEnd {
            cause: cause.into(),
            message: "as the test said".into(),
        }),
        ..seen(intent, Phase::Ended)
    }
}

/// A raw disk with something that looks like a kernel. `None`, loudly, without e2fsprogs.
pub fn disk(dir: &Path) -> Option<Vec<u8>> {
    let root = dir.join("root/boot/extlinux");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("extlinux.conf"), "label linux\n kernel /boot/vmlinuz\n").unwrap();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    elf.resize(50_000, 7);
    std::fs::write(dir.join("root/boot/vmlinuz"), elf).unwrap();
    let image = dir.join("image");
    let tools = ["/sbin/mke2fs", "/usr/sbin/mke2fs"];
    let Some(tool) = tools.into_iter().find(|tool| Path::new(tool).exists()) else {
        eprintln!("SKIPPED: a test of hearthd: mke2fs is absent; install e2fsprogs");
        return None;
    };
    let _ = std::fs::remove_file(&image);
    let made = Command::new(tool)
        .args(["-q", "-t", "ext4", "-d"])
        .arg(dir.join("root"))
        .arg(&image)
        .arg("8M")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    Some(std::fs::read(image).unwrap())
}

/// Uploads in chunks as a client would.
pub async fn register(client: &Client, name: &str, bytes: &[u8]) -> Result<String, Status> {
    register_as(client, name, "", bytes).await
}

/// With a boot mode that is asked for.
pub async fn register_as(
    client: &Client,
    name: &str,
    boot_mode: &str,
    bytes: &[u8],
) -> Result<String, Status> {
    let parameters = Part::Parameters(Parameters {
        name: name.into(),
        size: bytes.len() as i64,
        boot_mode: boot_mode.into(),
        ..Parameters::default()
    });
    let mut parts = vec![v1::UploadImageRequest {
        part: Some(parameters),
    }];
    for (n, piece) in bytes.chunks(1 << 20).enumerate() {
        if piece.iter().any(|b| *b != 0) {
            parts.push(v1::UploadImageRequest {
                part: Some(Part::Chunk(Chunk {
                    offset: (n << 20) as i64,
                    data: piece.to_vec().into(),
                })),
            });
        }
    }
    let answer = client
        .clone()
        .image_disks
        .upload_image(tokio_stream::iter(parts))
        .await?;
    Ok(answer.into_inner().image_id)
}

/// For a launch without public addresses.
pub fn without_public_address() -> Vec<v1::InstanceNetworkInterfaceSpecification> {
    vec![v1::InstanceNetworkInterfaceSpecification {
        device_index: Some(0),
        associate_public_ip_address: Some(false),
        ..v1::InstanceNetworkInterfaceSpecification::default()
    }]
}

/// A script beside these tests, with what is in `tests/clients`.
pub fn script(python: impl AsRef<OsStr>, name: &str) -> Command {
    const CRATE: &str = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(python);
    command
        .arg(format!("{CRATE}/tests/cloud/{name}"))
        .env("PYTHONPATH", format!("{CRATE}/../../tests/clients"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

pub fn code(status: &Status) -> String {
    let error = ApiError::from_status(status);
    error.map_or_else(|| format!("no EC2 error: {status:?}"), |e| e.code.to_string())
}

/// A cloud with an image; and a host that is not connected yet.
pub struct Cloud {
    pub hearthd: Hearthd,
    pub client: Client,
    pub host: Host,
    pub image_id: String,
}

impl Cloud {
    pub async fn start() -> Option<Self> {
        Self::with(&[]).await
    }

    pub async fn with(arguments: &[&str]) -> Option<Self> {
        Self::of(Hearthd::with(arguments)).await
    }

    pub async fn of(hearthd: Hearthd) -> Option<Self> {
        let disk = disk(hearthd.dir.path())?;
        let client = hearthd.client().await;
        let image_id = register(&client, "tiny", &disk).await.unwrap();
        let host = Host::enroll(&hearthd).await;
        Some(Self {
            hearthd,
            client,
            host,
            image_id,
        })
    }

    pub async fn connect(&self) -> Session {
        self.host.connect(&self.hearthd).await
    }

    /// Waits until a host is connected.
    pub async fn until_connected(&self) {
        Self::connected(&self.hearthd.client().await).await;
    }

    pub async fn connected(client: &Client) {
        let connected = async {
            loop {
                let hosts = client.clone().hosts.list_hosts(v1::ListHostsRequest {}).await;
                let hosts = hosts.unwrap().into_inner().hosts;
                if hosts.iter().any(|host| host.state == "connected") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, connected)
            .await
            .expect("no host is connected");
    }

    pub fn request(&self, count: i32) -> v1::RunInstancesRequest {
        v1::RunInstancesRequest {
            image_id: self.image_id.clone(),
            instance_type: "t2.micro".into(),
            min_count: count,
            max_count: count,
            ..v1::RunInstancesRequest::default()
        }
    }

    pub async fn run(&self, request: v1::RunInstancesRequest) -> Result<v1::Reservation, Status> {
        let answer = self.client.clone().instances.run_instances(request).await?;
        Ok(answer.into_inner())
    }

    pub async fn reservations(&self) -> Vec<v1::Reservation> {
        let request = v1::DescribeInstancesRequest::default();
        let mut instances = self.client.clone().instances;
        let answer = instances.describe_instances(request).await.unwrap();
        answer.into_inner().reservations
    }

    pub async fn all(&self) -> Vec<v1::Instance> {
        instances(&self.client).await
    }

    pub async fn instance(&self, id: &str) -> v1::Instance {
        self.all()
            .await
            .into_iter()
            .find(|instance| instance.instance_id == id)
            .unwrap()
    }

    /// Watches until the instance is in the state.
    pub async fn until(&self, id: &str, state: &str) -> v1::Instance {
        let request = v1::WatchInstancesRequest {
            instance_ids: vec![id.to_owned()],
        };
        let mut stream = self
            .client
            .clone()
            .watch
            .watch_instances(request)
            .await
            .unwrap()
            .into_inner();
        let watch = async {
            loop {
                let instance = stream.message().await.unwrap().unwrap();
                if name(&instance) == state {
                    return instance;
                }
            }
        };
        tokio::time::timeout(SOON, watch)
            .await
            .unwrap_or_else(|_| panic!("{id} does not become {state}"))
    }
}

pub fn name(instance: &v1::Instance) -> &str {
    &instance.state.as_ref().unwrap().name
}

/// A file system of its own, in memory.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(at: &Path, size: &str) -> Option<Self> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "hearth-test"])
            .arg(at)
            .output();
        if !done.is_ok_and(|done| done.status.success()) {
            eprintln!("SKIPPED: a test of hearthd: a tmpfs cannot be mounted; be root");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
