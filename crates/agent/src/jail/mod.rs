//! Confining monitors: a user, a pid namespace and a cgroup for each.
//!
//! A monitor is not trusted: its guest may have found a way into it. It gets open descriptors and nothing else.
//! Of the jail's walls the agent builds those that must stand before the monitor's process does ([`uid`],
//! [`cgroup`], the pid namespace in [`Cell::spawn`]); the monitor builds the others from inside, with its program
//! loaded already (`hearth_vmm::jail`). So nothing needs to be copied or mounted into an empty root, and
//! `hearth-vmm --jail` is all there is to execute.

pub mod cgroup;
pub mod cpus;
mod disk;
pub mod uid;

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::monitor::{MonitorError, MonitorHandle};
use crate::paths::DataDir;
use cgroup::{Cgroups, Group, Limits};
use uid::{Lease, UidRange, Uids};

#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("finding a free user for the monitor")]
    Uid(#[source] io::Error),
    #[error("making the monitor's cgroup")]
    Cgroup(#[source] io::Error),
}

/// What the operator decides about jails.
#[derive(Debug, Clone)]
pub struct Settings {
    pub uids: UidRange,
    /// The cgroup, below each hierarchy's root, that all agents' monitors are in.
    pub cgroup: String,
    /// Each vCPU has a CPU of the host, the one that fewest others have.
    pub pin_vcpus: bool,
}

/// Makes the cells of one agent's monitors.
#[derive(Debug)]
pub struct Jail {
    uids: Uids,
    cgroups: Cgroups,
    pin_vcpus: bool,
    /// Whether limits of living monitors can be raised.
    raises_limits: bool,
    /// Two cells that are made at once must not choose the same CPUs.
    choosing: Mutex<()>,
}

/// Where one monitor is to live.
#[derive(Debug)]
pub struct Cell {
    lease: Lease,
    group: Group,
    /// Bytes of the largest file that it writes.
    pub largest_file: u64,
    /// The host's CPU of each vCPU; empty where they are not pinned.
    pub cpus: Vec<u16>,
}

impl Jail {
    /// Looks at what the host offers, and says what is missing.
    pub fn new(settings: &Settings, dir: &DataDir) -> Jail {
        let cgroups = Cgroups::find(&settings.cgroup, dir.root(), settings.pin_vcpus);
        cgroups.sweep();
        match disk::without_shares(dir.root()) {
            Ok(disks) if disks.is_empty() => {}
            Ok(disks) => tracing::info!(
                ?disks,
                "instances have no shares of these disks: whoever reads or writes most gets most; the I/O scheduler bfq \
                 gives shares (`modprobe bfq; echo bfq >/sys/block/DISK/queue/scheduler`)"
            ),
            Err(error) => tracing::debug!(%error, "looking for the disks of the data directory"),
        }
        let own = rustix::thread::capabilities(None);
        let raises_limits = own.is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_RESOURCE));
        if !raises_limits {
            tracing::warn!(
                "without CAP_SYS_RESOURCE a volume that is attached later could not be larger than those before: the sizes of \
                 the files that monitors write, their logs among them, are not limited"
            );
        }
        Jail {
            uids: Uids::new(settings.uids),
            cgroups,
            pin_vcpus: settings.pin_vcpus,
            raises_limits,
            choosing: Mutex::default(),
        }
    }

    /// Makes a cell for an instance's next monitor. The one before has ended.
    ///
    /// # Errors
    /// No user is free, or a cgroup cannot be made where there are cgroups.
    pub fn cell(&self, instance_id: &str, limits: &Limits) -> Result<Cell, JailError> {
        let lease = self.uids.lease(instance_id).map_err(JailError::Uid)?;
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let cpus = if self.pin_vcpus {
            self.cgroups
                .least_used_cpus(limits.vcpus)
                .map_err(JailError::Cgroup)?
        } else {
            Vec::new()
        };
        let group = self
            .cgroups
            .make(instance_id, limits, &cpus)
            .map_err(JailError::Cgroup)?;
        Ok(Cell {
            lease,
            group,
            largest_file: match self.raises_limits {
                true => limits.file,
                false => libc::RLIM_INFINITY,
            },
            cpus,
        })
    }

    /// Lets a monitor of this jail write files of up to `bytes`.
    ///
    /// # Errors
    /// The kernel refuses; that the process is already dead is no error.
    pub fn allow_file_size(&self, monitor: &MonitorHandle, bytes: u64) -> Result<(), MonitorError> {
        match self.raises_limits {
            true => monitor.allow_file_size(bytes),
            false => Ok(()),
        }
    }

    /// Removes what [`Jail::cell`] made, if no process is in it.
    pub fn vacate(&self, instance_id: &str) {
        self.cgroups.remove(instance_id);
    }
}

/// Removes every trace of the cells of the agent with this data directory. Its monitors have ended.
pub fn demolish(cgroup: &str, dir: &DataDir) {
    Cgroups::find(cgroup, dir.root(), true).remove_all();
    uid::sweep();
}

impl Cell {
    pub fn uid(&self) -> u32 {
        self.lease.uid
    }

    /// The directories of its cgroup: one in each hierarchy.
    pub fn cgroups(&self) -> impl Iterator<Item = &Path> {
        self.group.dirs()
    }

    /// To be inherited by the monitor: the uid is taken as long as it is open somewhere.
    pub fn uid_lock(&self) -> io::Result<std::fs::File> {
        self.lease.lock.try_clone()
    }

    /// Spawns `command` in the cell, as the first process of a pid namespace.
    ///
    /// # Errors
    /// As [`Command::spawn`], or the namespace or a cgroup refuses.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let procs: Vec<_> = self.group.process_files()?;
        let fds: Vec<_> = procs.iter().map(|file| file.as_raw_fd()).collect();
        let file_size = libc::rlimit {
            rlim_cur: self.largest_file,
            rlim_max: self.largest_file,
        };
        // SAFETY: the closure makes system calls only, on descriptors that `procs` keeps open until the spawn is
        // over.
        unsafe {
            command.pre_exec(move || {
                // Its log and its outcome, too, are files of ours that it could fill the disk with.
                if libc::setrlimit(libc::RLIMIT_FSIZE, &file_size) < 0 {
                    return Err(io::Error::last_os_error());
                }
                fds.iter()
                    .try_for_each(|&fd| match libc::write(fd, b"0".as_ptr().cast(), 1) {
                        1 => Ok(()),
                        _ => Err(io::Error::last_os_error()),
                    })
            });
        }
        // A pid namespace is for the children of the thread that made it, and so are version 1's cgroups: that
        // thread is one of its own, which ends here.
        let spawned = thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("spawn".into())
                .spawn_scoped(scope, || {
                    // SAFETY: a pid namespace changes nothing about this thread but where its children are.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
                    self.group.move_thread()?;
                    command.spawn()
                })?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
        });
        drop(procs);
        spawned
    }
}

/// Writes into one of the kernel's files; an error says which and what.
fn write_setting(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value).map_err(|error| {
        let words = format!("writing {value:?} into {}: {error}", path.display());
        io::Error::new(error.kind(), words)
    })
}
