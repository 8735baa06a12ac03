//! How many files this process may have open.

use hearth_network::DESCRIPTORS_PER_INTERFACE;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of the agent itself: its store, its sessions, monitors' control sockets and consoles.
const RESERVE: u64 = 1024;
/// Interfaces that should be able to use their whole share at once.
const EXPECTED_INTERFACES: u64 = 100;

/// Raises the limit to what the system allows: guests' connections are bounded for each interface, not in sum.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "raising the limit of open files");
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let interfaces = interfaces(now);
    if interfaces < EXPECTED_INTERFACES {
        tracing::warn!(
            limit = now,
            "the limit of open files lets only {interfaces} network interfaces use their whole share of DNS and IMDS \
             at once; raise it (LimitNOFILE= in the agent's unit)",
        );
    }
}

fn interfaces(limit: u64) -> u64 {
    limit.saturating_sub(RESERVE) / DESCRIPTORS_PER_INTERFACE as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_hard_limit_is_enough() {
        // systemd's, and the kernel's.
        assert!(interfaces(524_288) > 3000);
        assert!(interfaces(4096) < EXPECTED_INTERFACES);
        assert_eq!(interfaces(100), 0);
    }
}
