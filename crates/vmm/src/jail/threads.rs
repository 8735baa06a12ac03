//! Starting threads under their filters.
//!
//! A thread inherits the filters of the one that starts it and can only add to them. So that the filter of a
//! vCPU, which starts a device's workers when the guest says so, need not allow all that these may, one thread
//! that never sees a guest's byte starts all others.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::{Role, filter};

/// It runs closures of a few lines.
const STARTER_STACK: usize = 64 << 10;

type Task = Box<dyn FnOnce() + Send>;

/// Once there are filters.
static STARTER: OnceLock<Sender<Task>> = OnceLock::new();

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("forbidding new privileges")]
    NoNewPrivileges(#[source] io::Error),
    #[error("putting the filter of the {0:?} thread on")]
    Install(Role, #[source] io::Error),
    #[error("starting the thread that starts the others")]
    Starter(#[source] io::Error),
    #[error("threads are filtered already")]
    Twice,
}

/// Puts the calling thread under the filter of `role`, and every thread that [`spawn`] starts from now on under
/// its own. There should be no other thread yet: it would stay as it is.
///
/// # Errors
/// See [`FilterError`]. Part of it may have been done: the process should end.
pub fn filter_threads(role: Role) -> Result<(), FilterError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| FilterError::NoNewPrivileges(error.into()))?;
    let install = |role| move |error| FilterError::Install(role, error);
    filter::refuse_clone3().map_err(install(role))?;
    let (tasks, inbox) = channel::<Task>();
    Builder::new()
        .name("starter".into())
        .stack_size(STARTER_STACK)
        .spawn(move || {
            put_on(Role::Starter);
            inbox.into_iter().for_each(|task| task());
        })
        .map_err(FilterError::Starter)?;
    STARTER.set(tasks).map_err(|_| FilterError::Twice)?;
    filter::put_on(role).map_err(install(role))
}

/// Starts a thread as `builder` says, under the filter of `role` if threads are filtered.
///
/// # Errors
/// The process may not have another thread.
pub fn spawn<T: Send + 'static>(
    role: Role,
    builder: Builder,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let Some(starter) = STARTER.get() else {
        return builder.spawn(run);
    };
    let (answer, answered) = channel();
    let task = move || {
        let started = builder.spawn(move || {
            put_on(role);
            run()
        });
        // Whoever asked waits for it.
        let _ = answer.send(started);
    };
    let gone = || io::Error::other("the thread that starts the others has ended");
    starter.send(Box::new(task)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// Nothing may run without: the process ends, as after every panic.
fn put_on(role: Role) {
    if let Err(error) = filter::put_on(role) {
        panic!("putting the filter of the {role:?} thread on: {error}");
    }
}
