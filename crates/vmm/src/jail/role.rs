//! The kinds of threads, as `seccomp/filters.list` names them.

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
    /// Starts the threads of all other roles.
    Starter,
}
