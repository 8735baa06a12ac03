//! Which user `hearthd` runs as: the one that owns its data directory.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Private by default, and never root's files in another user's data directory: as root, the process goes on as the
/// user and group that own `data_dir`. Call it before there are other threads. Without a data directory yet nothing
/// changes but the umask.
///
/// # Errors
/// The directory cannot be looked at, or the kernel refuses the change.
pub fn continue_as_owner(data_dir: &Path) -> anyhow::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let owner = match data_dir.metadata() {
        Ok(found) if found.uid() != 0 => found,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", data_dir.display())),
    };
    // In this order: after setuid nothing else is permitted.
    setgroups(&[])
        .and_then(|()| setgid(Gid::from_raw(owner.gid())))
        .and_then(|()| setuid(Uid::from_raw(owner.uid())))
        .with_context(|| {
            format!(
                "going on as user {}, who owns {}",
                owner.uid(),
                data_dir.display()
            )
        })
}
