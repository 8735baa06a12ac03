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
        Role::Bases => &BASES,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    const KVM_RUN: u64 = 0xae80;

    /// What a filter says to a call, as the kernel runs it, and in how many steps.
    fn verdict(
        program: &[libc::sock_filter],
        number: u32,
        architecture: u32,
        arguments: u64,
    ) -> (u32, usize) {
        let mut shown = vec![number, architecture, 0, 0];
        (0..6).for_each(|_| shown.extend([arguments as u32, (arguments >> 32) as u32]));
        let (mut loaded, mut at) = (0, 0);
        for steps in 1.. {
            let step = &program[at];
            let branch = |is: bool| usize::from(if is { step.jt } else { step.jf });
            at += 1 + match step.code {
                0x20 => {
                    loaded = shown[step.k as usize / 4];
                    0
                }
                0x54 => {
                    loaded &= step.k;
                    0
                }
                0x05 => step.k as usize,
                0x15 => branch(loaded == step.k),
                0x25 => branch(loaded > step.k),
                0x35 => branch(loaded >= step.k),
                0x45 => branch(loaded & step.k != 0),
                0x06 => return (step.k, steps),
                other => panic!("a step of kind {other:#x}"),
            };
        }
        unreachable!()
    }

    #[test]
    fn a_filter_that_searches_says_what_one_says_that_asks_for_each_call_and_sooner() {
        let pairs: [(&[_], &[_]); 12] = [
            (&CONTROL, &PLAIN_CONTROL),
            (&TERMINAL, &PLAIN_TERMINAL),
            (&CONSOLE, &PLAIN_CONSOLE),
            (&VCPU, &PLAIN_VCPU),
            (&BLOCK, &PLAIN_BLOCK),
            (&NET, &PLAIN_NET),
            (&RNG, &PLAIN_RNG),
            (&BALLOON, &PLAIN_BALLOON),
            (&VSOCK, &PLAIN_VSOCK),
            (&PAGES, &PLAIN_PAGES),
            (&BASES, &PLAIN_BASES),
            (&STARTER, &PLAIN_STARTER),
        ];
        for (searching, plain) in pairs {
            // System calls and arguments alike.
            let compared: BTreeSet<u32> = plain.iter().map(|step| step.k).collect();
            let same = |number, architecture, arguments| {
                let (found, _) = verdict(searching, number, architecture, arguments);
                let (expected, _) = verdict(plain, number, architecture, arguments);
                assert_eq!(found, expected, "call {number}, arguments {arguments:#x}");
            };
            for number in (0..600).chain(0x4000_0000..0x4000_0258).chain([u32::MAX]) {
                same(number, X86_64, 0);
                same(number, I386, 0);
            }
            for &number in &compared {
                let arguments = compared.iter().copied().map(u64::from);
                let others = [KVM_RUN, 1 << 32, u64::MAX];
                arguments
                    .chain(others)
                    .for_each(|arguments| same(number, X86_64, arguments));
            }
            let steps = |program: &[_]| {
                (0..460)
                    .map(|call| verdict(program, call, X86_64, 0).1)
                    .sum::<usize>()
            };
            assert!(steps(searching) * 2 < steps(plain));
        }
    }
}
