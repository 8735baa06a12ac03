//! The kinds of threads, as `seccomp/filters.list` names them.

use std::str::FromStr;

/// What a thread is for, which decides what it may ask of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Builds the machine and serves the control socket.
    Control,
    /// The same for `hearth-vmm run`.
    Terminal,
    /// Serves the serial console.
    Console,
    /// Runs the guest.
    Vcpu,
    /// Serves a disk's queue.
    Block,
    /// Serves a NIC's queue.
    Net,
    Rng,
    /// Serves a balloon's queues.
    Balloon,
    /// Serves all of a vsock device.
    Vsock,
    /// Watches over whoever brings memory pages.
    Pages,
    /// Asks for what has not come of the disks' bases.
    Bases,
    /// Starts the threads of all other roles.
    Starter,
}

impl Role {
    /// Of the threads that a guest could break into.
    pub const EXPOSED: [Self; 8] = [
        Self::Control,
        Self::Console,
        Self::Vcpu,
        Self::Block,
        Self::Net,
        Self::Rng,
        Self::Balloon,
        Self::Vsock,
    ];

    /// As in the list of filters.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::EXPOSED.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("no role {text:?}"))
    }
}
