//! What the monitor gives up, once and for ever: the host's names, files, devices, privileges.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};
use rustix::fs::OFlags;

/// The machine's largest set of devices takes a few hundred: interrupts, doorbells, queues.
const DESCRIPTORS: u64 = 4096;
/// Bytes: before Linux 5.12 io_uring's rings count as locked memory. Guest memory is not registered with them.
const RINGS: u64 = 8 << 20;
/// Where the empty root is mounted before it becomes the root: a directory that every host has, and that is
/// covered in the monitor's own mount namespace only.
const STAGE: &CStr = c"/proc";
const NAME: &CStr = c"hearth-vmm";
const LAST_CAPABILITY: u64 = 63;

#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct EnterError {
    doing: &'static str,
    #[source]
    source: io::Error,
}

/// Takes from this process all that a monitor does not need: every descriptor above `last_fd`, the host's mounts,
/// networks, IPC and names (the pid namespace is the agent's to make), its files, root's identity and
/// capabilities. `uid` is user and group from here on.
///
/// The root is empty. Or it is `directory`, a handed-over descriptor, with what is in it and nothing above it;
/// the descriptor is then one of the new root.
///
/// # Errors
/// Root's privileges are not there, or a kernel feature is not. Part of it may have been done: the process
/// should end.
pub fn enter(uid: u32, last_fd: RawFd, directory: Option<RawFd>) -> Result<(), EnterError> {
    close_above(last_fd).map_err(failed("closing descriptors"))?;
    limit_resources().map_err(failed("setting resource limits"))?;
    // In a namespace of mounts that is not theirs, directories cannot be mounted.
    let tree = directory
        .map(detached_tree)
        .transpose()
        .map_err(failed("cloning the directory's mount"))?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(failed("making namespaces"))?;
    // Kernels may lack it. It hides names only.
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    rename_host().map_err(failed("naming the namespace"))?;
    change_root(tree).map_err(failed("changing the root"))?;
    if let Some(directory) = directory {
        point_at_root(directory).map_err(failed("letting go of the directory outside"))?;
    }
    umask(Mode::from_bits_truncate(0o077));
    drop_privileges(uid)
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> EnterError {
    move |error| EnterError {
        doing,
        source: error.into(),
    }
}

fn close_above(last: RawFd) -> io::Result<()> {
    let first = u32::try_from(last.saturating_add(1)).map_err(io::Error::other)?;
    // SAFETY: no descriptor above the handed-over ones is owned by anything in this process yet.
    check(unsafe { libc::close_range(first, u32::MAX, 0) })
}

/// Memory and threads are the cgroup's to limit, where there is one.
fn limit_resources() -> nix::Result<()> {
    let limits = [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        // A dump would hold the guest's memory.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, RINGS),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    limits.into_iter().try_for_each(|(resource, limit)| {
        // A root without CAP_SYS_RESOURCE cannot go above what it was given.
        let (_, highest) = getrlimit(resource)?;
        setrlimit(resource, limit.min(highest), limit.min(highest))
    })
}

fn rename_host() -> io::Result<()> {
    // SAFETY: the name is valid for the length given.
    check(unsafe { libc::sethostname(NAME.as_ptr(), NAME.count_bytes()) })?;
    // SAFETY: as above.
    check(unsafe { libc::setdomainname(NAME.as_ptr(), NAME.count_bytes()) })
}

/// A tree of the mount that `directory` is in, from it downwards, which is mounted nowhere yet.
fn open_tree(directory: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: an empty name, and numbers.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, directory, c"".as_ptr(), flags) };
    let tree = RawFd::try_from(tree).map_err(io::Error::other)?;
    check(tree)?;
    // SAFETY: the call made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// A mount of `directory` that is mounted nowhere yet: a clone. Before Linux 6.15, what is a clone that is mounted
/// nowhere cannot be cloned again; then it is the mount itself.
fn detached_tree(directory: RawFd) -> io::Result<OwnedFd> {
    match open_tree(directory) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // SAFETY: a descriptor that was handed over stays open until `point_at_root` replaces it.
            unsafe { BorrowedFd::borrow_raw(directory) }.try_clone_to_owned()
        }
        tree => tree,
    }
}

/// `tree`, or a file system with nothing in it, becomes the root, read-only, and all others are let go.
fn change_root(tree: Option<OwnedFd>) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match tree {
        Some(tree) => {
            move_mount(&tree)?;
            // It was cloned from a mount that may be shared, as all of the host's are where systemd runs.
            mount(none, STAGE, none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
            mount(none, STAGE, none, again, none)?;
        }
        None => {
            let options = Some("size=4k,nr_inodes=1,mode=0555");
            mount(Some("empty"), STAGE, Some("tmpfs"), flags, options)?;
        }
    }
    chdir(STAGE)?;
    // The old root lies upon the new one until it is let go; no directory for it is needed.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

fn move_mount(tree: &OwnedFd) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let (from, here, to) = (tree.as_raw_fd(), libc::AT_FDCWD, c"".as_ptr());
    // SAFETY: names that end in zero, and numbers.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            to,
            here,
            STAGE.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(moved as libc::c_int)
}

/// Otherwise whoever goes to the directory it was could climb to the host's root from there.
fn point_at_root(directory: RawFd) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty())?;
    // SAFETY: the descriptor is replaced by one that is open, whoever owns it.
    check(unsafe { libc::dup3(root.as_raw_fd(), directory, libc::O_CLOEXEC) })
}

fn drop_privileges(uid: u32) -> Result<(), EnterError> {
    for capability in 0..=LAST_CAPABILITY {
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            // This kernel knows no more.
            break;
        }
    }
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })
        .map_err(failed("clearing ambient capabilities"))?;
    setgroups(&[]).map_err(failed("leaving groups"))?;
    let gid = Gid::from_raw(uid);
    setresgid(gid, gid, gid).map_err(failed("changing the group"))?;
    // Clears the permitted and effective capabilities, too.
    let user = Uid::from_raw(uid);
    setresuid(user, user, user).map_err(failed("changing the user"))?;
    clear_capabilities().map_err(failed("clearing capabilities"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| failed("forbidding new privileges")(io::Error::from(error)))?;
    // No ptrace, no core, and /proc/PID is root's.
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map_err(failed("becoming undumpable"))
}

/// What is left are inheritable ones.
fn clear_capabilities() -> rustix::io::Result<()> {
    let none = rustix::thread::CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
