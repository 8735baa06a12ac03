//! Is this machine fit to be a host? Asked once at start, with answers that say what to do.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("hearth-agent makes network namespaces and TAPs, for which it has to be root: run it with sudo")]
    NotRoot,
    #[error(
        "hearth-agent makes network namespaces and TAPs, and this root lacks CAP_NET_ADMIN: run it outside of the \
         container, or in a privileged one"
    )]
    NoNetworks,
    #[error(
        "/dev/kvm is missing: enable VT-x or AMD-V in the firmware (or nested virtualisation in the hypervisor above), then \
         `modprobe kvm_intel` or `modprobe kvm_amd`"
    )]
    NoKvm(#[source] std::io::Error),
    #[error(
        "/dev/kvm may not be opened: check its permissions (`ls -l /dev/kvm`), and in a container that the device is passed \
         in"
    )]
    KvmPermission(#[source] std::io::Error),
    #[error("/dev/kvm cannot be opened: the kernel's log says why (`dmesg | grep -i kvm`)")]
    Kvm(#[source] std::io::Error),
    #[error("nft is not in PATH: `apt-get install nftables`")]
    Nft,
    #[error("the monitor {0} is not there: build it (`cargo build -p hearth-vmm`) or name it with --vmm")]
    Monitor(PathBuf),
}

/// # Errors
/// The first thing that is missing.
pub fn check(monitor: &Path) -> Result<(), Unfit> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unfit::NotRoot);
    }
    if !may_administer_networks() {
        return Err(Unfit::NoNetworks);
    }
    check_monitor(monitor)?;
    open_kvm()?;
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    if !std::env::split_paths(&path).any(|dir| dir.join("nft").is_file()) {
        return Err(Unfit::Nft);
    }
    Ok(())
}

fn open_kvm() -> Result<(), Unfit> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            // The node may be there without its module, which the kernel then does not find, or which refuses the CPU.
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Unfit::NoKvm(error),
            Some(libc::EACCES | libc::EPERM) => Unfit::KvmPermission(error),
            _ => Unfit::Kvm(error),
        }),
    }
}

/// # Errors
/// The monitor is not there.
pub fn check_monitor(monitor: &Path) -> Result<(), Unfit> {
    if monitor.is_file() {
        Ok(())
    } else {
        Err(Unfit::Monitor(monitor.to_owned()))
    }
}

/// CAP_NET_ADMIN is bit 12 of the effective set; a container's root may lack it.
fn may_administer_networks() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & (1 << 12) != 0)
}
