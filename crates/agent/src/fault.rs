//! Places where a test may have the agent die, as if by SIGKILL.
//!
//! `HEARTH_AGENT_CRASH_AT=<point>` in the environment of a debug build; nothing at all in a release build.

/// Dies here when the environment says so.
#[inline]
pub(crate) fn point(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("HEARTH_AGENT_CRASH_AT").is_some_and(|at| at == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
