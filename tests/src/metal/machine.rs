//! One emulated machine: power, commands, network.

use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::rack::Rack;
use super::wire::{POLL, Wire};
use crate::host::run;

/// How long a machine may take from power to its first answer, on a host under load.
const BOOT: Duration = Duration::from_secs(300);
/// How long a command may take unless the test says otherwise.
const COMMAND: Duration = Duration::from_secs(120);

/// How a command ended in a machine.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}{}", self.status, self.stdout, self.stderr)
    }
}

#[derive(Debug)]
pub struct Machine {
    name: String,
    dir: PathBuf,
    image: PathBuf,
    shares: Vec<(String, PathBuf)>,
    /// Slots that what was plugged in besides the shares takes.
    plugged: usize,
    power: Option<Power>,
}

/// What exists while a machine has power.
#[derive(Debug)]
struct Power {
    qemu: Child,
    monitor: Wire,
    agent: Wire,
}

impl Machine {
    pub(super) fn resume(rack: &Rack, name: &str) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let ami = rack.ami.parent().context("HEARTH_METAL_AMI has no directory")?;
        let mut machine = Self {
            name: name.to_owned(),
            dir: rack.dir.clone(),
            image: rack.image.clone(),
            shares: [
                ("source", source),
                ("bin", Rack::binaries()?),
                ("ami", ami.to_path_buf()),
            ]
            .into_iter()
            .map(|(tag, path)| (tag.to_owned(), path))
            .chain(rack.shares.iter().cloned())
            .collect(),
            plugged: 0,
            power: None,
        };
        run(Command::new(rack.image.join("qemu/qemu-img"))
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(rack.image.join("disk.qcow2"))
            .arg(machine.path("qcow2")))?;
        machine.power_on(true).with_context(|| machine.last_words())?;
        machine.run(&format!(
            "hostname {name}; echo {name} >/etc/hostname; sed -i s/metal/{name}/ /etc/hosts"
        ))?;
        Ok(machine)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }

    /// All that was written to its serial line (`/dev/ttyS0`, which is its console) since it was first given power.
    pub fn console(&self) -> Result<String> {
        let console = std::fs::read(self.path("console")).context("reading the console")?;
        Ok(String::from_utf8_lossy(&console).into_owned())
    }

    /// The end of its console: for a failing test's message.
    fn last_words(&self) -> String {
        let text = self.console().unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("---- console of {}\n{}", self.name, tail.join("\n"))
    }

    /// Gives a machine without power power again: it boots, from the disk as it was left.
    pub fn boot(&mut self) -> Result<()> {
        ensure!(self.power.is_none(), "{} is running", self.name);
        self.power_on(false).with_context(|| self.last_words())
    }

    fn power_on(&mut self, resume: bool) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        let monitor = self.path("monitor");
        let agent = self.path("agent");
        let arguments = std::fs::read_to_string(self.image.join("arguments")).context("reading arguments")?;
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new(self.image.join("qemu/qemu-system-x86_64"));
        command
            // The arguments name the kernel relative to it.
            .current_dir(&self.image)
            .args(arguments.lines())
            .args(["-display", "none", "-pidfile"])
            .arg(self.path("pid"))
            .arg("-blockdev")
            .arg(format!(
                "driver=qcow2,node-name=disk,file.driver=file,file.filename={}",
                self.path("qcow2").display()
            ))
            .arg("-chardev")
            .arg(format!(
                "file,id=console,append=on,path={}",
                self.path("console").display()
            ))
            .arg("-chardev")
            .arg(format!(
                "socket,id=agent,server=on,wait=off,path={}",
                agent.display()
            ))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()));
        for (tag, path) in &self.shares {
            command.arg("-fsdev").arg(format!(
                "local,id={tag},path={},security_model=none,readonly=on,multidevs=remap",
                path.display()
            ));
        }
        if resume {
            command.args(["-incoming", "defer"]);
        }
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting qemu-system-x86_64")?;
        // From here on its end is in our hand.
        let mut qemu = Running(Some(qemu));
        let mut monitor = Wire::connect(&monitor, deadline)
            .with_context(|| std::fs::read_to_string(self.path("log")).unwrap_or_default())?;
        monitor.call("qmp_capabilities", json!({}), deadline)?;
        if resume {
            let state = format!("file:{}", self.image.join("state").display());
            monitor.call("migrate-incoming", json!({ "uri": state }), deadline)?;
            while monitor.call("query-status", json!({}), deadline)?["status"] == "inmigrate" {
                ensure!(Instant::now() < deadline, "the kept state is not loaded");
                std::thread::sleep(POLL);
            }
            monitor.call("cont", json!({}), deadline)?;
        }
        for (slot, (tag, _)) in self.shares.iter().enumerate() {
            let device = json!({
                "driver": "virtio-9p-pci", "id": tag, "fsdev": tag, "mount_tag": tag, "bus": slot_name(slot),
            });
            monitor.call("device_add", device, deadline)?;
        }
        let agent = Wire::connect(&agent, deadline)?;
        let qemu = qemu.0.take().context("QEMU is gone")?;
        self.power = Some(Power { qemu, monitor, agent });
        self.settle(deadline)
    }

    /// Waits until the machine answers, sets its clock, and mounts what it shares.
    fn settle(&mut self, deadline: Instant) -> Result<()> {
        self.synchronise(deadline)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let time = u64::try_from(now.as_nanos())?;
        self.agent()?
            .call("guest-set-time", json!({ "time": time }), deadline)?;
        let mounts: String = self
            .shares
            .iter()
            .map(|(tag, path)| {
                format!(
                    "mkdir -p '{path}'; for i in $(seq 100); do \
                     mount -t 9p -o trans=virtio,ro,cache=loose,msize=524288 {tag} '{path}' 2>/dev/null && break; sleep 0.1; \
                     done; mountpoint '{path}' || exit 1; ",
                    path = path.display()
                )
            })
            .collect();
        self.run(&format!("modprobe 9pnet_virtio; modprobe kvm_amd; {mounts}"))?;
        Ok(())
    }

    /// Waits until the agent in the machine answers to what is asked now, and not to what was asked before a boot.
    fn synchronise(&mut self, deadline: Instant) -> Result<()> {
        loop {
            let id: u32 = rand::random();
            let agent = self.agent()?;
            agent.send("guest-sync", json!({ "id": id }))?;
            let patience = Instant::now() + Duration::from_secs(2);
            while let Some(answer) = agent.receive(patience.min(deadline))? {
                if answer["return"] == json!(id) {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < deadline, "{} does not answer", self.name);
        }
    }

    fn power(&mut self) -> Result<&mut Power> {
        self.power.as_mut().context("the machine has no power")
    }

    fn agent(&mut self) -> Result<&mut Wire> {
        Ok(&mut self.power()?.agent)
    }

    /// Runs a bash script as root that must succeed within two minutes; its output without the last newline.
    pub fn run(&mut self, script: &str) -> Result<String> {
        self.run_for(COMMAND, script)
    }

    /// As [`Machine::run`], with another limit.
    pub fn run_for(&mut self, limit: Duration, script: &str) -> Result<String> {
        let ended = self.try_run(limit, script)?;
        ensure!(
            ended.status.success(),
            "{script:?} on {} ended with {ended}\n{}",
            self.name,
            self.last_words()
        );
        Ok(ended.stdout.trim_end().to_owned())
    }

    /// Runs a bash script as root, whatever it ends with.
    pub fn try_run(&mut self, limit: Duration, script: &str) -> Result<Ended> {
        let deadline = Instant::now() + limit;
        let name = self.name.clone();
        let agent = self.agent()?;
        let command = json!({
            "path": "/bin/bash", "arg": ["-c", script], "capture-output": true,
            "env": ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"],
        });
        let answer_by = deadline + COMMAND;
        let pid = agent.call("guest-exec", command, answer_by)?["pid"].take();
        let mut pause = POLL;
        loop {
            let status = agent.call("guest-exec-status", json!({ "pid": pid }), answer_by)?;
            if status["exited"] == json!(true) {
                return ended(&status);
            }
            ensure!(
                Instant::now() < deadline,
                "{script:?} on {name} did not end within {} s",
                limit.as_secs()
            );
            std::thread::sleep(pause);
            pause = (pause * 5 / 4).min(COMMAND / 400);
        }
    }

    /// Runs a bash script until it succeeds.
    pub fn wait_for(&mut self, what: &str, limit: Duration, script: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.try_run(limit, script)?;
            if ended.status.success() {
                return Ok(ended.stdout.trim_end().to_owned());
            }
            ensure!(
                Instant::now() < deadline,
                "waited in vain on {} for {what}: {ended}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Puts a file of at most a few MiB into the machine.
    pub fn put(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let deadline = Instant::now() + COMMAND;
        let agent = self.agent()?;
        let handle = agent.call("guest-file-open", json!({ "path": path, "mode": "w" }), deadline)?;
        for piece in bytes.chunks(1 << 20) {
            let arguments = json!({ "handle": handle, "buf-b64": STANDARD.encode(piece) });
            agent.call("guest-file-write", arguments, deadline)?;
        }
        agent.call("guest-file-close", json!({ "handle": handle }), deadline)?;
        Ok(())
    }

    /// Takes its power away: what its kernel has not written to its disk by now is lost.
    pub fn cut_power(&mut self) -> Result<()> {
        let mut power = self.power.take().context("the machine has no power")?;
        power.qemu.kill()?;
        power.qemu.wait()?;
        for file in ["pid", "monitor", "agent"] {
            let _ = std::fs::remove_file(self.path(file));
        }
        Ok(())
    }

    /// Restarts it as an administrator does, and waits until it is up again; the seconds until its kernel started anew, and
    /// until it answered.
    pub fn reboot(&mut self) -> Result<(Duration, Duration)> {
        let start = Instant::now();
        let deadline = start + BOOT;
        let boot_id = "cat /proc/sys/kernel/random/boot_id";
        let before = self.run(boot_id)?;
        let resets = self.resets(deadline)?;
        // Its agent ends with it, perhaps before it has said how the command ended.
        self.agent()?.send(
            "guest-exec",
            json!({ "path": "/bin/systemctl", "arg": ["reboot"] }),
        )?;
        while self.resets(deadline)? == resets {
            if Instant::now() >= deadline {
                let (console, journal) = (self.last_words(), self.journal_of_the_last_boot());
                bail!("{} does not reboot\n{console}\n{journal:?}", self.name);
            }
            std::thread::sleep(POLL);
        }
        let down = start.elapsed();
        self.settle(deadline)?;
        ensure!(self.run(boot_id)? != before, "{} has not rebooted", self.name);
        Ok((down, start.elapsed()))
    }

    /// What was written down before it hung, by the machine itself once it has power again.
    fn journal_of_the_last_boot(&mut self) -> Result<String> {
        self.cut_power()?;
        self.boot()?;
        self.run("journalctl --boot -1 --no-pager --output short-precise | tail -n 200")
    }

    /// How often it has been reset since it got power.
    fn resets(&mut self, deadline: Instant) -> Result<u32> {
        let monitor = &mut self.power()?.monitor;
        monitor.call("query-status", json!({}), deadline)?;
        Ok(monitor.resets)
    }

    /// The next free slot.
    fn slot(&mut self) -> usize {
        self.plugged += 1;
        self.shares.len() + self.plugged - 1
    }

    /// Plugs an empty disk in until the next boot; its device file.
    pub fn plug_disk(&mut self, name: &str, bytes: u64) -> Result<String> {
        let deadline = Instant::now() + COMMAND;
        let path = self.path(name);
        File::create(&path)?.set_len(bytes)?;
        let slot = self.slot();
        let monitor = &mut self.power()?.monitor;
        let throttle = json!({ "qom-type": "throttle-group", "id": format!("throttle-{name}") });
        monitor.call("object-add", throttle, deadline)?;
        let disk = json!({
            "driver": "throttle", "node-name": format!("disk-{name}"), "throttle-group": format!("throttle-{name}"),
            "file": { "driver": "raw", "file": { "driver": "file", "filename": path } },
        });
        monitor.call("blockdev-add", disk, deadline)?;
        let device = json!({
            "driver": "virtio-blk-pci", "id": name, "drive": format!("disk-{name}"), "serial": name, "bus": slot_name(slot),
        });
        monitor.call("device_add", device, deadline)?;
        self.wait_for(
            "the new disk",
            COMMAND,
            &format!("readlink -e /dev/disk/by-id/virtio-{name}"),
        )
    }

    /// Limits a disk that was plugged in to so many bytes a second, reads and writes together.
    pub fn throttle_disk(&mut self, name: &str, bytes_per_second: u64) -> Result<()> {
        let limits = json!({
            "path": format!("/objects/throttle-{name}"), "property": "limits", "value": { "bps-total": bytes_per_second },
        });
        let monitor = &mut self.power()?.monitor;
        monitor.call("qom-set", limits, Instant::now() + COMMAND)?;
        Ok(())
    }

    /// Connects it to a network of the rack: one machine makes it, another one joins it. The interface's address is
    /// `address` (`10.99.0.1/24`).
    pub fn connect(&mut self, network: &str, makes_it: bool, address: &str) -> Result<()> {
        let deadline = Instant::now() + COMMAND;
        let path = self.dir.join(format!("{network}.network"));
        let slot = self.slot();
        let mac = format!("02:00:00:00:{slot:02x}:{:02x}", rand::random::<u8>());
        let monitor = &mut self.power()?.monitor;
        let netdev = json!({
            "type": "stream", "id": network, "server": makes_it,
            "addr": { "type": "unix", "path": path },
        });
        monitor.call("netdev_add", netdev, deadline)?;
        let device = json!({
            "driver": "virtio-net-pci", "id": format!("nic-{network}"), "netdev": network, "mac": mac, "bus": slot_name(slot),
        });
        monitor.call("device_add", device, deadline)?;
        self.wait_for(
            "the new network interface",
            COMMAND,
            &format!(
                "set -e; link=$(ip -o link | sed -n 's/^[0-9]*: \\([^:]*\\):.*{mac}.*/\\1/p'); [ -n \"$link\" ]; \
                 ip address replace {address} dev $link; ip link set $link up"
            ),
        )?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        if let Err(error) = self.power.is_some().then(|| self.cut_power()).transpose() {
            eprintln!("{} runs on: {error:#}", self.name);
        }
    }
}

/// The bus of a slot, as the machine's arguments name it.
fn slot_name(slot: usize) -> String {
    format!("slot{slot}")
}

/// Ends a QEMU that did not come up.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ended(status: &Value) -> Result<Ended> {
    let text = |key: &str| -> Result<String> {
        let bytes = STANDARD.decode(status[key].as_str().unwrap_or_default())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let number = |key: &str| status[key].as_i64().and_then(|n| i32::try_from(n).ok());
    let status = match (number("exitcode"), number("signal")) {
        (Some(code), _) => ExitStatus::from_raw(code << 8),
        (_, Some(signal)) => ExitStatus::from_raw(signal),
        _ => bail!("neither a code nor a signal: {status}"),
    };
    Ok(Ended {
        status,
        stdout: text("out-data")?,
        stderr: text("err-data")?,
    })
}
