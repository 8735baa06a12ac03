//! Another host of a cloud, on the same machine.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_api::v1;

use crate::Cloud;
use crate::cloud::binary;
use crate::host::HostNamespace;
use crate::janitor::Janitor;

const NAME: &str = "second";
const SOON: Duration = Duration::from_secs(60);

/// Runs a command where the names of network namespaces are its own, but for that of its host: two hosts have a VPC each of the
/// same id. Arguments: a directory, the host's namespace, the command.
const APART: &str = r#"
set -e
dir=$1 name=$2
shift 2
touch "$dir/host-namespace"
mount --bind "/run/netns/$name" "$dir/host-namespace"
mount -t tmpfs hearth-host /run/netns
touch "/run/netns/$name"
mount --bind "$dir/host-namespace" "/run/netns/$name"
exec "$@"
"#;

/// What is left of the host goes. Arguments: the cloud's directory, the agent's binary, the host's namespace, [`APART`].
const CLEAN: &str = r#"
cat >/dev/null
pkill -KILL -f -- "--data-dir $1/second"
unshare --mount sh -c "$4" apart "$1" "$3" "$2" cleanup --data-dir "$1/second" --host-network-namespace "$3" >/dev/null 2>&1
ip netns delete "$3"
"#;

/// Dropped before its cloud.
pub struct Second {
    agent: Child,
    pub host_id: String,
    pub namespace: HostNamespace,
    _janitor: Janitor,
}

impl Second {
    /// Joins a second host, and waits until it is connected.
    ///
    /// # Errors
    /// It does not join in time.
    pub async fn join(cloud: &Cloud) -> Result<Self> {
        let namespace = HostNamespace::new()?;
        let agent = binary("hearth-agent")?;
        let arguments = [
            cloud.dir().as_os_str().to_owned(),
            agent.clone().into_os_string(),
            namespace.name.clone().into(),
            APART.into(),
        ];
        let janitor = Janitor::new(CLEAN, arguments.iter().map(AsRef::as_ref))?;
        let before = hosts(cloud).await?;
        cloud.join_as(NAME)?;
        let log = cloud.log("second.log")?;
        let agent = Command::new("unshare")
            .args(["--mount", "sh", "-c", APART, "apart"])
            .arg(cloud.dir())
            .arg(&namespace.name)
            .arg(&agent)
            .arg("--data-dir")
            .arg(cloud.path(NAME))
            .args(["--host-network-namespace", &namespace.name])
            .env("HEARTH_AGENT_BOOT_ID", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the second hearth-agent")?;
        let mut second = Self {
            agent,
            host_id: String::new(),
            namespace,
            _janitor: janitor,
        };
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let is_new = |host: &&v1::Host| before.iter().all(|known| known.host_id != host.host_id);
            let now = hosts(cloud).await?;
            if let Some(host) = now.iter().filter(is_new).find(|host| host.state == "connected") {
                second.host_id.clone_from(&host.host_id);
                return Ok(second);
            }
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "the second host is not connected: {now:?}\n{}",
                std::fs::read_to_string(cloud.path("second.log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// All hosts.
///
/// # Errors
/// The control plane does not answer.
pub async fn hosts(cloud: &Cloud) -> Result<Vec<v1::Host>> {
    let answer = cloud.hosts().await?.list_hosts(v1::ListHostsRequest {}).await?;
    Ok(answer.into_inner().hosts)
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
