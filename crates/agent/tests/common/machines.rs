//! A host with real KVM, real TAPs and the tiny AMI, for a test that can run there.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hearth_api::agent::rule::Peer;
use hearth_api::agent::*;

use super::{Cloud, PATIENCE};

/// Minutes where KVM interprets the guest's kernel.
const BOOT: Duration = Duration::from_secs(300);

/// What a test's agent keeps its guests in.
#[derive(Debug)]
pub struct Host {
    /// The network namespace that stands for the host's own.
    pub namespace: String,
    pub cgroup: String,
    /// 198.18.POOL.0/24 are the public addresses.
    pool: u8,
    key: PathBuf,
}

impl Host {
    fn new(dir: &std::path::Path) -> Host {
        let number = rand::random::<u32>();
        let host = Host {
            namespace: format!("hearth-test-{number:08x}"),
            cgroup: format!("hearth-test-{number:08x}"),
            pool: (number % 254) as u8 + 1,
            key: dir.join("key"),
        };
        run(Command::new("ip").args(["netns", "add", &host.namespace]));
        run(Command::new("ip").args(["-n", &host.namespace, "link", "set", "lo", "up"]));
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&host.key));
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.namespace])
            .status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

impl Cloud {
    /// A cloud whose guests are machines, or `None`, loudly, where there can be none.
    pub async fn of_machines(test: &str) -> Option<Cloud> {
        let ami = std::env::var_os("HEARTH_TINY_AMI");
        let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
        let (Some(ami), Ok(_), true) = (ami, kvm, rustix::process::geteuid().is_root()) else {
            eprintln!("SKIPPED: {test}: needs root, /dev/kvm, and HEARTH_TINY_AMI (scripts/test sets it)");
            return None;
        };
        let mut cloud = Cloud::new().await;
        *cloud.image.lock().unwrap() = std::fs::read(ami).unwrap();
        let host = Host::new(cloud.dir.path());
        cloud.intents.send_modify(|intents| {
            intents.vpcs.push(VpcIntent {
                vpc_id: format!("vpc-{:017x}", rand::random::<u64>() >> 1),
                cidr_block: "172.31.0.0/16".to_owned(),
                public_pool_cidr: format!("198.18.{}.0/24", host.pool),
                security_groups: vec![SecurityGroupIntent {
                    group_id: "sg-00000000000000001".to_owned(),
                    ingress: vec![rule()],
                    egress: vec![rule()],
                    ..SecurityGroupIntent::default()
                }],
                subnets: vec![SubnetIntent {
                    subnet_id: "subnet-00000000000000001".to_owned(),
                    cidr_block: "172.31.0.0/20".to_owned(),
                    internet_cidrs: vec!["0.0.0.0/0".to_owned()],
                }],
                dns_disabled: false,
            });
        });
        cloud.machines = Some(host);
        Some(cloud)
    }

    /// Instance `number`, 1 to 99, with a root volume of its own.
    pub fn machine(&self, number: u8) -> InstanceIntent {
        let host = self.machines.as_ref().unwrap();
        let mut intent = self.intent(&format!("i-{number:017x}"), 128);
        intent.volumes[0].volume_id = format!("vol-{:017x}", u64::from(number) << 8);
        intent.volumes[0].size_bytes = 128 << 20;
        intent.network_interfaces[0] = NetworkInterface {
            network_interface_id: format!("eni-{:017x}", u64::from(number) << 40),
            vpc_id: self.intents.borrow().vpcs[0].vpc_id.clone(),
            subnet_id: "subnet-00000000000000001".to_owned(),
            subnet_cidr: "172.31.0.0/20".to_owned(),
            mac_address: format!("02:00:00:00:00:{number:02x}"),
            private_ip: format!("172.31.0.{}", u32::from(number) + 100),
            public_ip: format!("198.18.{}.{}", host.pool, u32::from(number) + 100),
            security_group_ids: vec!["sg-00000000000000001".to_owned()],
            attachment_epoch: 1,
        };
        intent.metadata = Some(InstanceMetadata {
            instance_type: "t2.nano".to_owned(),
            local_hostname: format!("machine-{number}"),
            key_name: "key".to_owned(),
            public_key: std::fs::read_to_string(host.key.with_extension("pub")).unwrap(),
            security_group_names: vec!["default".to_owned()],
            http_endpoint_enabled: true,
            http_put_response_hop_limit: 1,
            ..InstanceMetadata::default()
        });
        intent
    }

    /// Waits until the guest has said that it is ready so many times.
    pub async fn until_ready(&self, id: &str, times: usize) {
        let console = self.data_dir().join("instances").join(id).join("console");
        let until = Instant::now() + BOOT;
        loop {
            let said = std::fs::read(&console).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if said.matches("hearth-tiny: ready in").count() >= times {
                return;
            }
            assert!(Instant::now() < until, "{id} is not ready: {said}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    fn ssh_command(&self, id: &str, script: &str) -> Command {
        let intents = self.intents.borrow();
        let intent = intents.instances.iter().find(|it| it.instance_id == id).unwrap();
        let host = self.machines.as_ref().unwrap();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &host.namespace, "ssh", "-i"])
            .arg(&host.key)
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "BatchMode=yes",
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ConnectTimeout=60",
            ])
            .arg(format!("root@{}", intent.network_interfaces[0].public_ip))
            .arg(script)
            .stdin(Stdio::null());
        command
    }

    pub async fn try_ssh(&self, id: &str, script: &str) -> Output {
        let mut command = self.ssh_command(id, script);
        tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap()
    }

    /// What a script that must succeed prints in the guest, without the last newline.
    pub async fn ssh(&self, id: &str, script: &str) -> String {
        let output = self.try_ssh(id, script).await;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{script} in {id}: {said} {errors}\n{}",
            self.logged()
        );
        said
    }

    /// Waits in the guest until a condition holds.
    pub async fn ssh_until(&self, id: &str, condition: &str) {
        let tenths = PATIENCE.as_secs() * 5;
        let script = format!(
            "n=0; until {condition}; do n=$((n+1)); [ $n -lt {tenths} ] || exit 1; usleep 200000; done"
        );
        self.ssh(id, &script).await;
    }

    /// The pids of the monitors that have a file of the data directory open.
    pub fn monitors(&self) -> Vec<i32> {
        let ours = self.dir.path().to_string_lossy().into_owned();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == "hearth-vmm")
                && std::fs::read_dir(path.join("fd")).is_ok_and(|fds| {
                    fds.flatten()
                        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                        .any(|target| target.to_string_lossy().starts_with(&ours))
                })
            {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        pids
    }
}

fn rule() -> Rule {
    Rule {
        protocol: -1,
        from_port: -1,
        to_port: -1,
        peer: Some(Peer::Cidr("0.0.0.0/0".to_owned())),
    }
}
