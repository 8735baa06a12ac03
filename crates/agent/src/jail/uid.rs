//! A user for each living monitor, and never the same one for two.
//!
//! An instance's user follows from its id, or is the next free one after that. A user is taken by a lock on a file
//! in `/run/hearth/uids` which the monitor inherits: the kernel gives it up when the monitor ends, whatever
//! happens to the agent, and several agents on one host do not collide.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{FlockOperation, flock};

const DIR: &str = "/run/hearth/uids";

/// Users that are the agents' to give: numbers without names, that nobody else uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    count: u32,
}

impl UidRange {
    /// Above the subordinate users that `useradd` hands out and those of systemd's containers.
    pub const DEFAULT: &str = "1900000000-1900065535";

    /// The numbers, beginning at the one that `instance_id` is for.
    fn from(self, instance_id: &str) -> impl Iterator<Item = u32> {
        let hash = blake3::hash(instance_id.as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        let start = u32::from_le_bytes([a, b, c, d]) % self.count;
        (0..self.count)
            .map(move |n| self.first + ((u64::from(start) + u64::from(n)) % u64::from(self.count)) as u32)
    }
}

impl FromStr for UidRange {
    type Err = String;

    fn from_str(text: &str) -> Result<UidRange, String> {
        let numbers = text.split_once('-').and_then(|(first, last)| {
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            // The last number is the kernel's word for none.
            (first > 0 && first <= last && last < u32::MAX).then_some((first, last))
        });
        let (first, last) =
            numbers.ok_or_else(|| format!("{text:?} is no range FIRST-LAST of users above 0"))?;
        Ok(UidRange {
            first,
            count: last - first + 1,
        })
    }
}

#[derive(Debug)]
pub struct Uids {
    dir: PathBuf,
    range: UidRange,
}

/// A user that is taken while `lock`, or a duplicate of it, is open.
#[derive(Debug)]
pub struct Lease {
    pub uid: u32,
    pub lock: File,
}

impl Uids {
    pub fn new(range: UidRange) -> Uids {
        Uids {
            dir: DIR.into(),
            range,
        }
    }

    /// # Errors
    /// All are taken, or the directory of locks cannot be used.
    pub fn lease(&self, instance_id: &str) -> io::Result<Lease> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        for uid in self.range.from(instance_id) {
            if let Some(lock) = try_lock(&self.dir.join(uid.to_string()))? {
                return Ok(Lease { uid, lock });
            }
        }
        Err(io::Error::other("every user of the range has a monitor"))
    }
}

/// Removes the locks that no monitor of any agent holds.
pub fn sweep() {
    let dir = Path::new(DIR);
    sweep_dir(dir);
    // They go if they are empty.
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        let _ = std::fs::remove_dir(dir);
    }
}

fn sweep_dir(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Ok(Some(_held)) = try_lock(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// `None` if someone else has it. Read-only: whoever inherits it can do nothing with it.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CREAT | libc::O_NOFOLLOW)
            .mode(0o600)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // A sweep may have removed it between the two calls: then the lock means nothing.
        if file.metadata()?.nlink() > 0 {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn uids(dir: &Path, range: &str) -> Uids {
        Uids {
            dir: dir.join("locks"),
            range: range.parse().unwrap(),
        }
    }

    #[test]
    fn an_instance_has_the_same_user_again_and_shares_it_with_none() {
        let dir = tempfile::tempdir().unwrap();
        let uids = uids(dir.path(), "1000-1003");
        let first = uids.lease("i-1").unwrap().uid;
        let leases: Vec<Lease> = (0..4).map(|_| uids.lease("i-1").unwrap()).collect();
        assert_eq!(leases[0].uid, first);
        let distinct: BTreeSet<u32> = leases.iter().map(|lease| lease.uid).collect();
        assert_eq!(distinct, (1000..=1003).collect());
        assert!(uids.lease("i-2").is_err());
        drop(leases);
        uids.lease("i-2").unwrap();
    }

    #[test]
    fn a_sweep_leaves_what_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let uids = uids(dir.path(), "1000-1003");
        let held = uids.lease("i-1").unwrap();
        drop(uids.lease("i-2").unwrap());
        sweep_dir(&uids.dir);
        let left: Vec<_> = std::fs::read_dir(&uids.dir)
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(left, [held.uid.to_string().as_str()]);
        drop(held);
        sweep_dir(&uids.dir);
        assert_eq!(std::fs::read_dir(&uids.dir).unwrap().count(), 0);
    }

    #[test]
    fn ranges_are_looked_at() {
        UidRange::DEFAULT.parse::<UidRange>().unwrap();
        for wrong in ["", "5", "0-9", "9-5", "1-4294967295", "a-b"] {
            assert!(wrong.parse::<UidRange>().is_err(), "{wrong}");
        }
    }
}
