//! Putting a compiled filter upon the calling thread.

use std::io;

use super::Role;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

fn program(role: Role) -> &'static [libc::sock_filter] {
    match role {
        Role::Control => &CONTROL,
        Role::Terminal => &TERMINAL,
        Role::Console => &CONSOLE,
        Role::Vcpu => &VCPU,
        Role::Block => &BLOCK,
        Role::Net => &NET,
        Role::Rng => &RNG,
        Role::Balloon => &BALLOON,
        Role::Vsock => &VSOCK,
        Role::Pages => &PAGES,
        Role::Starter => &STARTER,
    }
}

/// From here on the calling thread, and each one that it starts, may do what `role` may, and nothing that an
/// earlier filter forbids.
///
/// # Errors
/// The process may still gain privileges (`no_new_privs` is not set), or the kernel has no seccomp.
pub(super) fn put_on(role: Role) -> io::Result<()> {
    install(program(role))
}

/// Has `clone3`, whose flags are in memory where no filter sees them, answered as by an old kernel.
///
/// # Errors
/// As [`put_on`].
pub(super) fn refuse_clone3() -> io::Result<()> {
    install(&NO_CLONE3)
}

fn install(program: &'static [libc::sock_filter]) -> io::Result<()> {
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives for ever, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const fprog,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
