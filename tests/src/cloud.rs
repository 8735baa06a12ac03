//! One `hearthd`, one `hearth-agent`, and what a test asks of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use hearth_api::client::{Transport, channel};
use hearth_api::v1::{
    self, hosts_client::HostsClient, image_disks_client::ImageDisksClient, images_client::ImagesClient,
    instances_client::InstancesClient, key_pairs_client::KeyPairsClient,
    security_groups_client::SecurityGroupsClient, snapshots_client::SnapshotsClient,
    volumes_client::VolumesClient, watch_client::WatchClient,
};

use crate::guest::Guest;
use crate::host::{HostNamespace, run};
use crate::janitor::Janitor;

/// How long a guest may take to boot, here where KVM may be emulated.
pub const BOOT: Duration = Duration::from_secs(300);
/// How long anything but a boot may take.
const SOON: Duration = Duration::from_secs(60);

/// As t2.nano, with a disk of an instance store.
const OWN_TYPES: &str = r#"
["test.store"]
vcpus = 1
memory-mib = 512
instance-store = { disks = 1, size-gb = 1, media = "ssd" }
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    Hearthd,
    Agent,
}

/// What is left of a cloud goes. Arguments: the cloud's directory, the agent's binary, the host's namespace.
const CLEAN: &str = r#"
cat >/dev/null
pkill -KILL -f -- "--data-dir $1/"
"$2" cleanup --data-dir "$1/agent" --host-network-namespace "$3" >>"$1/cleanup.log" 2>&1 || cat "$1/cleanup.log" >&2
ip netns delete "$3"
rm -rf "$1"
"#;

/// Uploads a disk as an AMI, without its holes. Answers the AMI's id.
pub async fn upload_image(
    images: ImageDisksClient<Transport>,
    name: &str,
    bytes: &[u8],
) -> Result<String, tonic::Status> {
    upload_sparse(images, name, bytes, bytes.len() as u64).await
}

/// The same of a disk of `size` bytes, whose end is a hole.
async fn upload_sparse(
    mut images: ImageDisksClient<Transport>,
    name: &str,
    bytes: &[u8],
    size: u64,
) -> Result<String, tonic::Status> {
    use v1::upload_image_request::{Chunk, Parameters, Part};
    let mut parts = vec![Part::Parameters(Parameters {
        name: name.into(),
        size: size as i64,
        ..Default::default()
    })];
    for (index, data) in bytes.chunks(1 << 20).enumerate() {
        if data.iter().any(|b| *b != 0) {
            let offset = (index << 20) as i64;
            parts.push(Part::Chunk(Chunk {
                offset,
                data: data.to_vec().into(),
            }));
        }
    }
    let stream = futures::stream::iter(parts).map(|part| v1::UploadImageRequest { part: Some(part) });
    Ok(images.upload_image(stream).await?.into_inner().image_id)
}

/// A whole cloud.
pub struct Cloud {
    hearthd: Option<Child>,
    agent: Option<Child>,
    agent_port: u16,
    /// The host's boot, as its agents are told.
    boot: u32,
    pool: u8,
    /// The AMI that every launch of [`Cloud::launch`] uses.
    pub image_id: String,
    pub host: HostNamespace,
    dir: PathBuf,
    /// Dropped last: it removes what the others have left.
    _janitor: Janitor,
}

impl Cloud {
    /// Starts both daemons, registers the tiny AMI, makes the key pair `key` and the security group `ssh`,
    /// which admits ssh from anywhere.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hearth-").tempdir()?.keep();
        let host = HostNamespace::new()?;
        let agent = binary("hearth-agent")?;
        let janitor = Janitor::new(CLEAN, [dir.as_os_str(), agent.as_os_str(), host.name.as_ref()])?;
        let mut cloud = Self {
            hearthd: None,
            agent: None,
            agent_port: 0,
            boot: 1,
            pool: rand::random_range(1..=254),
            image_id: String::new(),
            host,
            dir,
            _janitor: janitor,
        };
        cloud.start_hearthd().await?;
        cloud.join()?;
        cloud.start_agent().await?;
        cloud.prepare().await?;
        Ok(cloud)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What both daemons have logged: for a failing test's message.
    pub fn logs(&self) -> String {
        ["hearthd.log", "agent.log"]
            .map(|name| {
                let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                format!(
                    "---- {name}\n{}\n",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                )
            })
            .concat()
    }

    pub async fn start_hearthd(&mut self) -> Result<()> {
        let types = self.path("instance-types.toml");
        std::fs::write(&types, OWN_TYPES)?;
        let endpoints = self.path("controller/endpoints.json");
        match std::fs::remove_file(&endpoints) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let log = self.log("hearthd.log")?;
        self.hearthd = Some(
            Command::new(binary("hearthd")?)
                .env("HEARTH_REQUEST_RATE_PERCENT", "0")
                .arg("--data-dir")
                .arg(self.path("controller"))
                .arg("--socket")
                .arg(self.path("api.sock"))
                .args(["--agent-listen", &format!("127.0.0.1:{}", self.agent_port)])
                .args(["--public-pool", &format!("198.18.{}.0/24", self.pool)])
                .args(["--ec2-listen", "127.0.0.1:0"])
                .arg("--instance-types")
                .arg(types)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("starting hearthd")?,
        );
        self.wait_for("hearthd to listen", SOON, || endpoints.exists().then_some(()))
            .await?;
        let text = std::fs::read_to_string(&endpoints)?;
        let json: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("endpoints {text:?}"))?;
        let address = json["agent_listen"]
            .as_str()
            .with_context(|| format!("agent_listen in {text}"))?;
        self.agent_port = address.rsplit(':').next().unwrap_or_default().parse()?;
        Ok(())
    }

    /// Lets the host join, with a token of its own.
    pub fn join(&self) -> Result<()> {
        self.join_as("agent")
    }

    /// The same, of a host whose data directory has this name.
    pub(crate) fn join_as(&self, name: &str) -> Result<()> {
        let token = run(Command::new(binary("hearthd")?)
            .args(["join-token", "--data-dir"])
            .arg(self.path("controller")))?
        .stdout;
        std::fs::write(self.path("token"), token)?;
        run(Command::new(binary("hearth-agent")?)
            .arg("join")
            .arg(format!("@{}", self.path("token").display()))
            .arg("--data-dir")
            .arg(self.path(name)))?;
        Ok(())
    }

    pub async fn start_agent(&mut self) -> Result<()> {
        let log = self.log("agent.log")?;
        self.agent = Some(
            Command::new(binary("hearth-agent")?)
                .arg("--data-dir")
                .arg(self.path("agent"))
                .args(["--host-network-namespace", &self.host.name])
                .env("HEARTH_AGENT_BOOT_ID", self.boot.to_string())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("starting hearth-agent")?,
        );
        Ok(())
    }

    /// What a host does when it shuts down: the agent ends, then the guests do.
    pub fn shut_down_host(&mut self) -> Result<()> {
        self.kill(Daemon::Agent)?;
        let log = self.log("agent.log")?;
        let status = Command::new(binary("hearth-agent")?)
            .args(["shutdown-guests", "--patience", "300", "--data-dir"])
            .arg(self.path("agent"))
            .args(["--host-network-namespace", &self.host.name])
            .env("HEARTH_AGENT_BOOT_ID", self.boot.to_string())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        ensure!(status.success(), "shutdown-guests: {status}\n{}", self.logs());
        self.boot += 1;
        Ok(())
    }

    /// Ends every process of the host at once; the next agent finds another boot.
    pub fn cut_power(&mut self) -> Result<()> {
        self.kill(Daemon::Agent)?;
        for pid in self.monitors()? {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        }
        self.boot += 1;
        Ok(())
    }

    /// SIGKILL, without a chance to tidy up.
    pub fn kill(&mut self, daemon: Daemon) -> Result<()> {
        let child = match daemon {
            Daemon::Hearthd => self.hearthd.take(),
            Daemon::Agent => self.agent.take(),
        };
        let mut child = child.context("the daemon is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub fn pid(&self, daemon: Daemon) -> Option<u32> {
        let child = match daemon {
            Daemon::Hearthd => &self.hearthd,
            Daemon::Agent => &self.agent,
        };
        child.as_ref().map(Child::id)
    }

    pub(crate) fn log(&self, name: &str) -> Result<File> {
        Ok(File::options().create(true).append(true).open(self.path(name))?)
    }

    async fn channel(&self) -> Result<Transport> {
        Ok(channel(&self.endpoint()).await?)
    }

    pub async fn instances(&self) -> Result<InstancesClient<Transport>> {
        Ok(InstancesClient::new(self.channel().await?))
    }

    pub async fn hosts(&self) -> Result<HostsClient<Transport>> {
        Ok(HostsClient::new(self.channel().await?))
    }

    pub async fn security_groups(&self) -> Result<SecurityGroupsClient<Transport>> {
        Ok(SecurityGroupsClient::new(self.channel().await?))
    }

    pub async fn key_pairs(&self) -> Result<KeyPairsClient<Transport>> {
        Ok(KeyPairsClient::new(self.channel().await?))
    }

    pub async fn watch(&self) -> Result<WatchClient<Transport>> {
        Ok(WatchClient::new(self.channel().await?))
    }

    pub async fn images(&self) -> Result<ImagesClient<Transport>> {
        Ok(ImagesClient::new(self.channel().await?))
    }

    pub async fn image_disks(&self) -> Result<ImageDisksClient<Transport>> {
        Ok(ImageDisksClient::new(self.channel().await?))
    }

    pub async fn volumes(&self) -> Result<VolumesClient<Transport>> {
        Ok(VolumesClient::new(self.channel().await?))
    }

    pub async fn snapshots(&self) -> Result<SnapshotsClient<Transport>> {
        Ok(SnapshotsClient::new(self.channel().await?))
    }

    /// The port of AWS's tools, as they are told it.
    pub fn ec2_endpoint(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.path("controller/endpoints.json"))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let address = json["ec2_listen"].as_str();
        Ok(format!(
            "http://{}",
            address.with_context(|| format!("ec2_listen in {text}"))?
        ))
    }

    /// The API's.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.path("api.sock").display())
    }

    async fn prepare(&mut self) -> Result<()> {
        let ami = std::env::var("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?;
        self.image_id = self.register("tiny", Path::new(&ami)).await?;

        let key = self
            .key_pairs()
            .await?
            .create_key_pair(v1::CreateKeyPairRequest {
                key_name: "key".into(),
                key_type: "ed25519".into(),
                ..Default::default()
            })
            .await?
            .into_inner();
        std::fs::write(self.path("key.pem"), key.key_material)?;
        run(Command::new("chmod").arg("600").arg(self.path("key.pem")))?;

        self.make_group("ssh").await?;
        self.authorize("ssh", tcp_from("0.0.0.0/0", 22)).await?;
        self.wait_for_host().await
    }

    /// Until the agent's zone is available: a launch can be placed.
    async fn wait_for_host(&self) -> Result<()> {
        let mut regions = v1::regions_client::RegionsClient::new(self.channel().await?);
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let zones = regions.describe_availability_zones(v1::DescribeAvailabilityZonesRequest::default());
            if zones
                .await?
                .into_inner()
                .availability_zones
                .iter()
                .any(|z| z.state == "available")
            {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "no host joined\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn register(&self, name: &str, file: &Path) -> Result<String, anyhow::Error> {
        let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(self.register_bytes(name, bytes).await?)
    }

    pub async fn register_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<String, tonic::Status> {
        let images = self.image_disks().await;
        let images = images.map_err(|e| tonic::Status::unavailable(format!("{e:#}")))?;
        upload_image(images, name, &bytes).await
    }

    /// An AMI of `size` bytes that begins with these.
    pub async fn register_sparse(&self, name: &str, bytes: &[u8], size: u64) -> Result<String> {
        Ok(upload_sparse(self.image_disks().await?, name, bytes, size).await?)
    }

    pub async fn make_group(&self, name: &str) -> Result<String> {
        let request = v1::CreateSecurityGroupRequest {
            group_name: name.into(),
            description: name.into(),
            ..Default::default()
        };
        Ok(self
            .security_groups()
            .await?
            .create_security_group(request)
            .await?
            .into_inner()
            .group_id)
    }

    pub async fn authorize(&self, group_name: &str, rule: v1::IpPermission) -> Result<()> {
        let mut groups = self.security_groups().await?;
        groups
            .authorize_security_group_ingress(v1::AuthorizeSecurityGroupIngressRequest {
                group_name: group_name.into(),
                ip_permissions: vec![rule],
                ..Default::default()
            })
            .await?;
        Ok(())
    }

    pub async fn revoke(&self, group_name: &str, rule: v1::IpPermission) -> Result<()> {
        let mut groups = self.security_groups().await?;
        groups
            .revoke_security_group_ingress(v1::RevokeSecurityGroupIngressRequest {
                group_name: group_name.into(),
                ip_permissions: vec![rule],
                ..Default::default()
            })
            .await?;
        Ok(())
    }

    /// A launch as most tests want it: one t2.nano with the key and the `ssh` group; `change` alters the request.
    pub async fn launch(&self, change: impl FnOnce(&mut v1::RunInstancesRequest)) -> Result<String> {
        let mut request = self.launch_request();
        change(&mut request);
        let reservation = self.instances().await?.run_instances(request).await?.into_inner();
        let first = reservation
            .instances
            .first()
            .context("a reservation without instances")?;
        Ok(first.instance_id.clone())
    }

    pub fn launch_request(&self) -> v1::RunInstancesRequest {
        v1::RunInstancesRequest {
            image_id: self.image_id.clone(),
            instance_type: "t2.nano".into(),
            min_count: 1,
            max_count: 1,
            key_name: "key".into(),
            security_groups: vec!["ssh".into()],
            ..Default::default()
        }
    }

    pub async fn describe(&self, instance_id: &str) -> Result<v1::Instance> {
        let request = v1::DescribeInstancesRequest {
            instance_ids: vec![instance_id.into()],
            ..Default::default()
        };
        let answer = self
            .instances()
            .await?
            .describe_instances(request)
            .await?
            .into_inner();
        let instance = answer.reservations.into_iter().flat_map(|r| r.instances).next();
        instance.with_context(|| format!("{instance_id} is not described"))
    }

    /// Waits, by the watch stream, until the instance is in `state`.
    pub async fn wait_for_state(&self, instance_id: &str, state: &str) -> Result<v1::Instance> {
        let wait = async {
            let request = v1::WatchInstancesRequest {
                instance_ids: vec![instance_id.into()],
            };
            let mut stream = self.watch().await?.watch_instances(request).await?.into_inner();
            while let Some(instance) = stream.message().await? {
                let now = instance.state.as_ref().map_or("", |s| s.name.as_str());
                if now == state {
                    return Ok(instance);
                }
                // As EC2's waiters: what has ended will not run by being waited for.
                ensure!(
                    state != "running" || !matches!(now, "stopped" | "terminated"),
                    "it is {now}: {:?}",
                    instance.state_reason
                );
            }
            bail!("the watch stream ended")
        };
        match tokio::time::timeout(BOOT, wait).await {
            Ok(result) => result.with_context(|| format!("waiting for {instance_id} to be {state}")),
            Err(_) => {
                let now = self.describe(instance_id).await;
                bail!("{instance_id} is not {state}: {now:?}\n{}", self.logs())
            }
        }
    }

    pub async fn console(&self, instance_id: &str) -> Result<String> {
        let request = v1::GetConsoleOutputRequest {
            instance_id: instance_id.into(),
            ..Default::default()
        };
        let output = self
            .instances()
            .await?
            .get_console_output(request)
            .await?
            .into_inner()
            .output;
        let output = BASE64_STANDARD
            .decode(output)
            .context("the console is no base64")?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Waits until the console has said `text` at least `times` times.
    pub async fn wait_for_console(&self, instance_id: &str, text: &str, times: usize) -> Result<String> {
        let deadline = tokio::time::Instant::now() + BOOT;
        loop {
            let console = self.console(instance_id).await.unwrap_or_default();
            if console.matches(text).count() >= times {
                return Ok(console);
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "the console of {instance_id} never said {text:?}:\n{console}\n{}",
                    self.logs()
                );
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Launches, and waits until ssh answers.
    pub async fn launch_guest(&self, change: impl FnOnce(&mut v1::RunInstancesRequest)) -> Result<Guest> {
        let id = self.launch(change).await?;
        self.guest(&id).await
    }

    /// The guest of a running instance, once it has said that it is ready after its first boot.
    pub async fn guest(&self, instance_id: &str) -> Result<Guest> {
        self.guest_after(instance_id, 1).await
    }

    /// The guest of a running instance, once it has been ready after `boots` boots: the console goes on over
    /// starts.
    pub async fn guest_after(&self, instance_id: &str, boots: usize) -> Result<Guest> {
        self.guest_on(&self.host, instance_id, boots).await
    }

    /// The same, on another host of this machine.
    pub async fn guest_on(&self, host: &HostNamespace, instance_id: &str, boots: usize) -> Result<Guest> {
        self.wait_for_state(instance_id, "running").await?;
        self.wait_for_console(instance_id, "hearth-tiny: ready", boots)
            .await?;
        let instance = self.describe(instance_id).await?;
        Ok(Guest::new(host.name.clone(), self.path("key.pem"), instance))
    }

    pub async fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(value) = probe() {
                return Ok(value);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "waited in vain for {what}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Pids of this cloud's monitors.
    pub fn monitors(&self) -> Result<Vec<i32>> {
        let marker = self.dir.to_string_lossy().into_owned();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.parse().ok())
            else {
                continue;
            };
            let Ok(comm) = std::fs::read_to_string(path.join("comm")) else {
                continue;
            };
            if comm.trim() != "hearth-vmm" {
                continue;
            }
            let ours = std::fs::read_dir(path.join("fd")).is_ok_and(|fds| {
                fds.flatten()
                    .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                    .any(|target| target.to_string_lossy().starts_with(&marker))
            });
            if ours {
                pids.push(pid);
            }
        }
        Ok(pids)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.hearthd].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// A rule that admits TCP to one port from a CIDR.
pub fn tcp_from(cidr: &str, port: i32) -> v1::IpPermission {
    v1::IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        ip_ranges: vec![v1::IpRange {
            cidr_ip: cidr.into(),
            description: String::new(),
        }],
        ..Default::default()
    }
}

/// A rule that admits TCP to one port from a group.
pub fn tcp_from_group(group_id: &str, port: i32) -> v1::IpPermission {
    v1::IpPermission {
        ip_protocol: "tcp".into(),
        from_port: Some(port),
        to_port: Some(port),
        user_id_group_pairs: vec![v1::UserIdGroupPair {
            group_id: group_id.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A binary of the workspace, beside the test's own.
pub fn binary(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // A test stands in target/<profile>/deps, a benchmark in target/<profile>.
    let dir = here
        .ancestors()
        .find(|p| p.ends_with("deps"))
        .and_then(Path::parent)
        .or_else(|| here.parent());
    let path = dir
        .context("the test binary is not in a target directory")?
        .join(name);
    ensure!(
        path.exists(),
        "{} is not built: cargo build --workspace --bins",
        path.display()
    );
    Ok(path)
}
