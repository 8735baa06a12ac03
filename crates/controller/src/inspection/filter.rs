//! The system calls that inspections and unpackings make. Any other ends the inspector.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const NO_RESERVE: u64 = libc::MAP_NORESERVE as u64;
const PRIVATE_MEMORY: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;

/// Puts the filter on for good. `is_asked_about`: the disk is opened by a library that asks the kernel about it, and closes it.
///
/// # Errors
/// The kernel has no seccomp, or the filter is wrong.
pub fn put_on(is_asked_about: bool) -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&program(is_asked_about)?)
}

fn program(is_asked_about: bool) -> Result<BpfProgram, seccompiler::Error> {
    let equals = |argument, value| SeccompCondition::new(argument, Dword, Eq, value);
    let rule = SeccompRule::new;
    let anywhere = [
        libc::SYS_lseek,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_getrusage,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        anywhere.into_iter().map(|call| (call, Vec::new())).collect();
    // The disk is descriptor 0, the answer goes to 1.
    for call in [libc::SYS_read, libc::SYS_pread64, libc::SYS_preadv] {
        rules.insert(call, vec![rule(vec![equals(0, 0)?])?]);
    }
    rules.insert(libc::SYS_write, vec![rule(vec![equals(0, 1)?])?]);
    // Private memory, which the limit counts, and nothing executable.
    let not_executable = || SeccompCondition::new(2, Dword, MaskedEq(!READ_WRITE & u64::from(u32::MAX)), 0);
    let private = SeccompCondition::new(
        3,
        Dword,
        MaskedEq(!NO_RESERVE & u64::from(u32::MAX)),
        PRIVATE_MEMORY,
    )?;
    rules.insert(libc::SYS_mmap, vec![rule(vec![not_executable()?, private])?]);
    rules.insert(libc::SYS_mprotect, vec![rule(vec![not_executable()?])?]);
    let may_move = vec![equals(3, libc::MREMAP_MAYMOVE as u64)?];
    rules.insert(libc::SYS_mremap, vec![rule(may_move)?]);
    if is_asked_about {
        for call in [libc::SYS_fstat, libc::SYS_close] {
            rules.insert(call, vec![rule(vec![equals(0, 0)?])?]);
        }
        let flags = [libc::F_GETFL, libc::F_GETFD];
        let flags = flags.map(|command| rule(vec![equals(0, 0)?, equals(1, command as u64)?]));
        rules.insert(libc::SYS_fcntl, flags.into_iter().collect::<Result<_, _>>()?);
        // Of the descriptor, and of no path.
        let itself = libc::AT_EMPTY_PATH as u64;
        let itself = SeccompCondition::new(2, Dword, MaskedEq(itself), itself)?;
        rules.insert(libc::SYS_statx, vec![rule(vec![equals(0, 0)?, itself])?]);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok(filter.try_into()?)
}
