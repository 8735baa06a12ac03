//! The contenders, each told to run the same guest: hearth-vmm, Firecracker, and QEMU's microvm.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::wire::GUEST_MAC;

/// A monitor's binary.
pub enum Monitor {
    Hearth(PathBuf),
    /// Another build of ours.
    Before(PathBuf),
    Firecracker(PathBuf),
    Qemu(PathBuf),
}

/// What all of them boot, with the serial console on standard output.
pub struct Guest<'a> {
    pub kernel: &'a Path,
    pub initrd: Option<&'a Path>,
    pub cmdline: &'a str,
    pub memory_mib: u64,
    pub vcpus: u32,
    pub disk: Option<Disk<'a>>,
    /// The name of a TAP interface.
    pub tap: Option<&'a str>,
}

/// A raw file.
#[derive(Clone, Copy)]
pub struct Disk<'a> {
    pub path: &'a Path,
    /// Whether it is opened with O_DIRECT, where the monitor can be told to. Ours can only by a spec.
    pub direct: bool,
}

impl Monitor {
    /// Ours, another build of ours where `$HEARTH_BEFORE` names one, and the peers that are here: Firecracker where
    /// `$FIRECRACKER` names it, and QEMU (`$QEMU`, or Debian's).
    pub fn all() -> Result<Vec<Self>> {
        let mut monitors = vec![Self::Hearth(hearth_tests::binary("hearth-vmm")?)];
        monitors.extend(std::env::var_os("HEARTH_BEFORE").map(|binary| Self::Before(binary.into())));
        if let Some(binary) = std::env::var_os("FIRECRACKER") {
            monitors.push(Self::Firecracker(binary.into()));
        } else {
            eprintln!("FIRECRACKER is not set: no comparison with it");
        }
        let binary =
            std::env::var_os("QEMU").map_or_else(|| "/usr/bin/qemu-system-x86_64".into(), PathBuf::from);
        if binary.exists() {
            monitors.push(Self::Qemu(binary));
        } else {
            eprintln!(
                "{} is absent: no comparison with QEMU (apt-get install qemu-system-x86)",
                binary.display()
            );
        }
        Ok(monitors)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Hearth(_) => "hearth-vmm",
            Self::Before(_) => "before",
            Self::Firecracker(_) => "Firecracker",
            Self::Qemu(_) => "QEMU microvm",
        }
    }

    /// The command that runs `guest`; `dir` takes the files that a monitor needs for it.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn command(&self, dir: &Path, guest: &Guest<'_>) -> Result<Command> {
        Ok(match self {
            Self::Hearth(binary) | Self::Before(binary) => hearth(binary, guest),
            Self::Firecracker(binary) => {
                let config = dir.join("firecracker.json");
                std::fs::write(&config, firecracker_config(guest).to_string())
                    .with_context(|| format!("writing {}", config.display()))?;
                let mut command = Command::new(binary);
                command
                    .args(["--no-api", "--enable-pci", "--config-file"])
                    .arg(config);
                command
            }
            Self::Qemu(binary) => qemu(binary, guest),
        })
    }
}

fn hearth(binary: &Path, guest: &Guest<'_>) -> Command {
    let mut command = Command::new(binary);
    command.arg("run").arg("--kernel").arg(guest.kernel);
    command.args(["--cmdline", guest.cmdline]);
    command.args(["--memory-mib", &guest.memory_mib.to_string()]);
    command.args(["--vcpus", &guest.vcpus.to_string()]);
    if let Some(initrd) = guest.initrd {
        command.arg("--initrd").arg(initrd);
    }
    if let Some(disk) = guest.disk {
        command.arg("--disk").arg(disk.path);
    }
    if let Some(tap) = guest.tap {
        command.args(["--tap", tap, "--mac", GUEST_MAC]);
    }
    command
}

pub fn firecracker_config(guest: &Guest<'_>) -> serde_json::Value {
    let drives: Vec<_> = guest
        .disk
        .iter()
        .map(|disk| {
            serde_json::json!({
                "drive_id": "disk", "path_on_host": disk.path, "is_root_device": false, "is_read_only": false,
                "cache_type": "Writeback", "io_engine": "Sync",
            })
        })
        .collect();
    let interfaces: Vec<_> = guest
        .tap
        .iter()
        .map(|tap| serde_json::json!({ "iface_id": "eth0", "guest_mac": GUEST_MAC, "host_dev_name": tap }))
        .collect();
    serde_json::json!({
        "boot-source": {
            "kernel_image_path": guest.kernel,
            "initrd_path": guest.initrd,
            "boot_args": guest.cmdline,
        },
        "drives": drives,
        "network-interfaces": interfaces,
        "machine-config": { "vcpu_count": guest.vcpus, "mem_size_mib": guest.memory_mib },
    })
}

fn qemu(binary: &Path, guest: &Guest<'_>) -> Command {
    let mut command = Command::new(binary);
    // With names for its threads.
    command.args(["-name", "bench,debug-threads=on"]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    command.args([
        "-M",
        "microvm,pcie=on,acpi=on,rtc=off,pit=off,pic=off,isa-serial=on,x-option-roms=off",
    ]);
    // Emulated KVM has neither this register nor that instruction, and QEMU insists on both.
    command.args(["-accel", "kvm", "-cpu", "host,-arch-capabilities,-cx16"]);
    command.args(["-m", &guest.memory_mib.to_string()]);
    command.args(["-smp", &guest.vcpus.to_string()]);
    command.arg("-kernel").arg(guest.kernel);
    command.args(["-append", guest.cmdline]);
    if let Some(initrd) = guest.initrd {
        command.arg("-initrd").arg(initrd);
    }
    if let Some(disk) = guest.disk {
        let drive = format!(
            "file={},if=none,id=disk,format=raw,cache={},aio=io_uring",
            disk.path.display(),
            if disk.direct { "none" } else { "writeback" }
        );
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    }
    if let Some(tap) = guest.tap {
        let backend = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
        let device = format!("virtio-net-pci,netdev=net,mac={GUEST_MAC},romfile=");
        command.args(["-netdev", &backend, "-device", &device]);
    }
    command
}

/// Milliseconds from the process's start until its standard output has said `text`; then `look` at the living
/// process, which is ended afterwards.
///
/// # Errors
/// It does not start, or ends before.
pub fn time_until(mut command: Command, text: &[u8], look: impl FnOnce(&Child) -> Result<()>) -> Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let result = (|| {
        let mut stdout = child.stdout.take().context("stdout")?;
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while !said.windows(text.len()).any(|w| w == text) {
            let n = stdout.read(&mut buffer)?;
            ensure!(
                n > 0,
                "{command:?} ended and had said: {}",
                String::from_utf8_lossy(&said)
            );
            said.extend_from_slice(&buffer[..n]);
        }
        let elapsed = start.elapsed().as_secs_f64() * 1000.0;
        look(&child)?;
        Ok(elapsed)
    })();
    let _ = child.kill();
    let _ = child.wait();
    result
}
