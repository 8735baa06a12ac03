//! What the inspector gives up before it reads a disk.

use std::ffi::CStr;
use std::io;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, getegid, geteuid, pivot_root};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What a process in jail may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of private memory that can be written to.
    pub memory: u64,
    pub cpu_seconds: u64,
}

pub const INSPECTION: Limits = Limits {
    memory: 64 << 20,
    cpu_seconds: 5,
};
/// User and group of the inspector where `hearthd` is root: behind the range that monitors are given by default.
const USER: u32 = 1_900_065_536;
/// Where the empty root is mounted before it becomes the root: a directory that every host has, and that is covered in
/// the inspector's own mount namespace only.
const STAGE: &CStr = c"/proc";

#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct JailError {
    doing: &'static str,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> JailError {
    move |error| JailError {
        doing,
        source: error.into(),
    }
}

/// Whose namespaces the process is in.
#[derive(Debug)]
pub enum Namespaces {
    /// Its own, made with the privileges it had.
    Own,
    /// Its own, with a user namespace.
    WithUsers,
    /// The host's, and why.
    Host(String),
}

/// Closes all descriptors but the standard ones.
///
/// # Errors
/// The kernel is older than 5.9.
pub fn close_descriptors() -> Result<(), JailError> {
    // SAFETY: this process has just begun, and nothing in it owns a descriptor above the standard ones.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed < 0 {
        return Err(failed("closing descriptors")(io::Error::last_os_error()));
    }
    Ok(())
}

/// Takes the host's mounts, networks, IPC and, for children, processes out of sight; the root is empty then. Where the host
/// refuses this to an unprivileged user, everything stays as it is.
///
/// # Errors
/// Namespaces were made and cannot be used.
pub fn make_namespaces() -> Result<Namespaces, JailError> {
    let (user, group) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    let made = match unshare(flags) {
        Ok(()) => Namespaces::Own,
        Err(_) => match unshare(flags | CloneFlags::CLONE_NEWUSER) {
            Ok(()) => Namespaces::WithUsers,
            Err(error) => return Ok(Namespaces::Host(error.desc().to_owned())),
        },
    };
    // Kernels may lack it. It hides names only.
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    if let Namespaces::WithUsers = made {
        let map = |file: &str, text: String| std::fs::write(format!("/proc/self/{file}"), text);
        map("setgroups", "deny".to_owned())
            .and_then(|()| map("uid_map", format!("{user} {user} 1")))
            .and_then(|()| map("gid_map", format!("{group} {group} 1")))
            .map_err(failed("mapping the user"))?;
    }
    empty_root().map_err(failed("changing the root"))?;
    Ok(made)
}

fn empty_root() -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("size=4k,nr_inodes=1,mode=0555");
    mount(Some("empty"), STAGE, Some("tmpfs"), flags, options)?;
    chdir(STAGE)?;
    // The old root lies upon the new one until it is let go; no directory for it is needed.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// Gives up the user, capabilities, and all resources but memory and processor time; these get limits.
///
/// # Errors
/// Something cannot be given up.
pub fn give_up(namespaces: &Namespaces, limits: Limits) -> Result<(), JailError> {
    for (resource, limit) in [
        (Resource::Data, limits.memory),
        // Soft and hard are equal: the end comes by SIGKILL, which the first process of a pid namespace heeds too.
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Nofile, 3),
        (Resource::Nproc, 0),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit).map_err(failed("setting resource limits"))?;
    }
    drop_user(namespaces)?;
    rustix::thread::set_no_new_privs(true).map_err(failed("forbidding new privileges"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("becoming undumpable"))?;
    // A change of user clears it, so it comes late.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("asking to end with the parent"))
}

fn drop_user(namespaces: &Namespaces) -> Result<(), JailError> {
    let bounding = CapabilitySet::all();
    for capability in bounding.iter() {
        // Kernels know fewer, and an unprivileged process may not: it can gain none by no_new_privs.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    if geteuid().is_root() && !matches!(namespaces, Namespaces::WithUsers) {
        let user = rustix::process::Uid::from_raw(USER);
        let group = rustix::process::Gid::from_raw(USER);
        rustix::thread::set_thread_groups(&[]).map_err(failed("leaving groups"))?;
        rustix::thread::set_thread_res_gid(group, group, group).map_err(failed("changing the group"))?;
        rustix::thread::set_thread_res_uid(user, user, user).map_err(failed("changing the user"))?;
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed("clearing capabilities"))
}
