//! Is this machine fit to be a host? Asked once at start, with answers that say what to do.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(
        "/dev/kvm cannot be opened for reading and writing: turn on virtualisation in the firmware, \
         load the module (`modprobe kvm_intel` or `modprobe kvm_amd`), and run as root or in group kvm"
    )]
    Kvm(#[source] std::io::Error),
    #[error("hearth-agent makes network namespaces and TAPs and must run as root (with CAP_NET_ADMIN)")]
    NotRoot,
    #[error("nft is not in PATH: `apt-get install nftables`")]
    Nft,
    #[error("the monitor {0} is not there: build it (`cargo build -p hearth-vmm`) or name it with --vmm")]
    Monitor(PathBuf),
}

/// # Errors
/// The first thing that is missing.
pub fn check(monitor: &Path) -> Result<(), Unfit> {
    check_monitor(monitor)?;
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(Unfit::Kvm)?;
    if !rustix::process::geteuid().is_root() || !may_administer_networks() {
        return Err(Unfit::NotRoot);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    if !std::env::split_paths(&path).any(|dir| dir.join("nft").is_file()) {
        return Err(Unfit::Nft);
    }
    Ok(())
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
