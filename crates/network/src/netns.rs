//! Network namespaces: making them, naming them, and working inside them.
//!
//! A thread's namespace is sticky, so async workers never change theirs: each piece of work that must see a namespace
//! runs on a fresh thread (about 50 µs) that enters it and ends. Sockets opened there stay in that namespace for good
//! and are then used by async tasks like any other.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use tokio::sync::oneshot;

use crate::NetworkError;

/// Of nsfs, `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// A namespace held open; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Netns(Arc<File>);

impl Netns {
    /// The namespace of the calling thread.
    pub(crate) fn current() -> Result<Self, NetworkError> {
        Self::open_file(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace bound to `path`; `None` when nothing is, also when only an empty file is left of it.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, NetworkError> {
        let opened = match Self::open_file(path) {
            Err(NetworkError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            other => other?,
        };
        let kind = fstatfs(&*opened.0).map_err(|e| file_error("looking at", path, e.into()))?;
        Ok((kind.filesystem_type() == NSFS_MAGIC).then_some(opened))
    }

    fn open_file(path: &Path) -> Result<Self, NetworkError> {
        let file = File::open(path).map_err(|e| file_error("opening the namespace", path, e))?;
        Ok(Self(Arc::new(file)))
    }

    /// Makes a new namespace and binds it to `path`, as `ip netns add` does.
    pub(crate) async fn create(path: PathBuf) -> Result<Self, NetworkError> {
        on_fresh_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| system_error("making a network namespace", e.into()))?;
            bind_current(&path)?;
            Self::current()
        })
        .await?
    }

    /// Binds this namespace to `path`, instead of whatever is bound there.
    pub(crate) async fn bind(&self, path: PathBuf) -> Result<(), NetworkError> {
        self.run(move || {
            Self::remove(&path)?;
            bind_current(&path)
        })
        .await
    }

    /// Removes the name; the namespace ends when its last user does. An absent one is no error.
    pub(crate) fn remove(path: &Path) -> Result<(), NetworkError> {
        if Self::open(path)?.is_some() {
            umount2(path, MntFlags::MNT_DETACH)
                .map_err(|e| file_error("unmounting the namespace", path, e.into()))?;
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error("removing", path, e)),
            _ => Ok(()),
        }
    }

    /// Runs `work` inside, on a thread of its own.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, NetworkError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, NetworkError> + Send + 'static,
    {
        let namespace = self.clone();
        let runtime = tokio::runtime::Handle::current();
        on_fresh_thread(move || {
            setns(&*namespace.0, CloneFlags::CLONE_NEWNET)
                .map_err(|e| system_error("entering a network namespace", e.into()))?;
            // Sockets that are made here are registered with the caller's runtime.
            let _entered = runtime.enter();
            work()
        })
        .await?
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Whether both are the same namespace, not merely the same name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self.0.metadata(), other.0.metadata()) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        }
    }
}

/// Binds the namespace of the calling thread to `path`.
fn bind_current(path: &Path) -> Result<(), NetworkError> {
    File::create(path).map_err(|e| file_error("creating", path, e))?;
    let bound = mount(
        Some("/proc/thread-self/ns/net"),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    bound.map_err(|e| file_error("binding a namespace to", path, e.into()))
}

/// A thread that stays in a namespace, for frequent work that takes microseconds and never blocks. It ends with the last
/// of these.
#[derive(Debug)]
pub(crate) struct Resident(mpsc::Sender<Job>);

type Job = Box<dyn FnOnce() + Send>;

impl Resident {
    /// # Errors
    /// The thread cannot be started. One that cannot enter the namespace ends, and refuses its work.
    pub(crate) fn start(netns: &Netns) -> Result<Self, NetworkError> {
        let (jobs, work) = mpsc::channel::<Job>();
        let namespace = netns.clone();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                if let Err(error) = setns(&*namespace.0, CloneFlags::CLONE_NEWNET) {
                    tracing::error!(%error, "entering a network namespace");
                    return;
                }
                for job in work {
                    job();
                }
            })
            .map_err(|e| system_error("starting a namespace thread", e))?;
        Ok(Self(jobs))
    }

    /// # Errors
    /// The thread has ended.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, NetworkError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            // The receiver is gone when the caller's task was cancelled: nobody is left to tell.
            let _ = answer.send(work());
        });
        // A thread that has ended drops the job, and with it the sender.
        let _ = self.0.send(job);
        answered.await.map_err(|_| ended_early())
    }
}

async fn on_fresh_thread<T, F>(work: F) -> Result<T, NetworkError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            // The receiver is gone when the caller's task was cancelled: nobody is left to tell.
            let _ = answer.send(work());
        })
        .map_err(|e| system_error("starting a namespace thread", e))?;
    answered.await.map_err(|_| ended_early())
}

fn ended_early() -> NetworkError {
    system_error(
        "working in a network namespace",
        io::Error::other("the thread ended early"),
    )
}

/// Makes the directory of names a shared mount, so that namespaces bound there are seen in every mount namespace and
/// can be unmounted from all of them: what `ip netns add` does first.
pub(crate) fn prepare_directory(path: &Path) -> Result<(), NetworkError> {
    std::fs::create_dir_all(path).map_err(|e| file_error("creating", path, e))?;
    let share = || {
        mount(
            None::<&str>,
            path,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    mount(
        Some(path),
        path,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .map_err(|e| file_error("sharing the mount", path, e.into()))
}

/// Writes a value under `/proc/sys`, of the namespace of the calling thread; nothing is written when it already holds.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(key);
    let current = std::fs::read_to_string(&path).map_err(|e| file_error("reading", &path, e))?;
    if current.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|e| file_error("writing", &path, e))
}

pub(crate) fn file_error(action: &'static str, path: &Path, source: io::Error) -> NetworkError {
    NetworkError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn system_error(action: impl Into<String>, source: io::Error) -> NetworkError {
    NetworkError::System {
        action: action.into(),
        source,
    }
}
