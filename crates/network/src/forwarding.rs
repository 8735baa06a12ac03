//! IPv4 forwarding in the root namespace: switched on for Hearth's guests, and for nobody else.
//!
//! A host that forwards already goes on as its operator has set it up. Where Hearth is the one that switches forwarding
//! on, a table drops what neither comes from nor goes to an uplink. Who switched it on is remembered by the boot and the
//! namespace that it was in, since the switch itself does not tell.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::NetworkError;
use crate::links::Links;
use crate::names::UPLINK_PREFIX;
use crate::netns::{Netns, file_error, sysctl};
use crate::rules::{Loaded, Rules};

const SWITCH: &str = "net/ipv4/ip_forward";
const SWITCH_PATH: &str = "/proc/sys/net/ipv4/ip_forward";

pub(crate) struct Forwarding {
    /// The guard's rules; `None` where the operator forwards.
    guard: Option<Loaded>,
    record: PathBuf,
}

impl Forwarding {
    /// Switches forwarding on in `root`. `record` is where it is remembered that Hearth did.
    pub(crate) async fn switch_on(root: &Netns, record: PathBuf) -> Result<Self, NetworkError> {
        let place = place(root)?;
        let is_on = root.run(is_on).await?;
        let is_ours = match std::fs::read_to_string(&record) {
            Ok(recorded) => recorded == place,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(file_error("reading", &record, e)),
        };
        if is_on && !is_ours {
            return Ok(Self { guard: None, record });
        }
        // In this order, so that a host whose agent is killed in between never forwards without its guard.
        // A record that is there already is not written again: cut short, it would say that the operator forwards.
        if !is_ours {
            std::fs::write(&record, place).map_err(|e| file_error("writing", &record, e))?;
        }
        let mut guard = Loaded::nothing_known(root.clone(), "the host's forwarding".to_owned());
        guard.make(Rules::guard()).await?;
        root.run(|| sysctl(SWITCH, "1")).await?;
        tracing::info!(
            "IPv4 forwarding was off; it is on now for guests only. To forward between other interfaces as well, switch \
             net.ipv4.ip_forward on before hearth-agent starts"
        );
        Ok(Self {
            guard: Some(guard),
            record,
        })
    }

    /// Puts the guard back if somebody has taken it away or changed it, and switches forwarding on again; says what was
    /// different.
    pub(crate) async fn check(&mut self, root: &Netns) -> Result<Option<String>, NetworkError> {
        if !root.run(is_on).await? {
            *self = Self::switch_on(root, self.record.clone()).await?;
            return Ok(Some("IPv4 forwarding was switched off".to_owned()));
        }
        let Some(guard) = &mut self.guard else {
            return Ok(None);
        };
        let difference = guard.check().await?;
        if difference.is_some() {
            guard.make(Rules::guard()).await?;
        }
        Ok(difference)
    }

    /// Switches forwarding off again if Hearth switched it on and no VPC, of any agent, is left.
    pub(crate) async fn switch_off(&mut self, root: &Netns, links: &Links) -> Result<(), NetworkError> {
        let is_uplink = |(_, name): &(u32, String)| name.starts_with(UPLINK_PREFIX);
        if self.guard.is_none() || links.list().await?.iter().any(is_uplink) {
            return Ok(());
        }
        root.run(|| sysctl(SWITCH, "0")).await?;
        crate::rules::remove_guard(root).await?;
        self.guard = None;
        std::fs::remove_file(&self.record).map_err(|e| file_error("removing", &self.record, e))
    }
}

/// In the calling thread's namespace.
fn is_on() -> Result<bool, NetworkError> {
    let read = std::fs::read_to_string(SWITCH_PATH);
    Ok(read
        .map_err(|e| file_error("reading", Path::new(SWITCH_PATH), e))?
        .trim()
        == "1")
}

/// This boot of this machine, and the namespace.
fn place(root: &Netns) -> Result<String, NetworkError> {
    let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = std::fs::read_to_string(boot_id).map_err(|e| file_error("reading", boot_id, e))?;
    let namespace = root.file().metadata();
    let inode = namespace
        .map_err(|e| file_error("looking at the namespace of", Path::new(SWITCH_PATH), e))?
        .ino();
    Ok(format!("{} {inode}\n", boot.trim()))
}
