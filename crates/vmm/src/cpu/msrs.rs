//! Which model-specific registers the guest may touch.
//!
//! KVM has code for hundreds: performance counters, tracing, power, thermal sensors, nested virtualization, other
//! hypervisors' interfaces. A guest has no business with most of them, and what it cannot reach is no way into
//! the host. So each is refused, with #GP as on a processor that lacks it, but for the table below. (The
//! x2APIC's registers, 0x800 to 0x8ff, cannot be filtered.)

use kvm_ioctls::{Cap, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use Access::{Read, ReadWrite};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    ReadWrite,
}

/// First, last, access, what it is. Intel SDM volume 4, AMD APM volume 2 appendix A, Linux msr-index.h.
const ALLOWED: &[(u32, u32, Access, &str)] = &[
    (0x10, 0x10, ReadWrite, "time stamp counter"),
    (0x11, 0x12, ReadWrite, "kvm-clock, in the old place"),
    (0x17, 0x17, Read, "platform id, which names the microcode"),
    (0x1b, 0x1b, ReadWrite, "local APIC's base"),
    (0x2a, 0x2a, Read, "hard power-on configuration"),
    (0x3a, 0x3a, ReadWrite, "feature control"),
    (0x3b, 0x3b, ReadWrite, "TSC adjustment"),
    (0x48, 0x49, ReadWrite, "speculation: control, prediction barrier"),
    (0x79, 0x79, ReadWrite, "microcode update, which KVM ignores"),
    (0x8b, 0x8b, ReadWrite, "microcode revision"),
    (0xce, 0xcf, Read, "platform information, core capabilities"),
    (0xe1, 0xe1, ReadWrite, "UMWAIT's limits"),
    (0xfe, 0xfe, Read, "MTRR capabilities"),
    (0x10a, 0x10b, ReadWrite, "speculation: capabilities, L1D flush"),
    (
        0x122,
        0x123,
        ReadWrite,
        "speculation: TSX and microarchitectural buffers",
    ),
    (0x140, 0x140, ReadWrite, "CPUID faulting"),
    (0x174, 0x176, ReadWrite, "SYSENTER"),
    (
        0x179,
        0x17b,
        ReadWrite,
        "machine check: capabilities, status, control",
    ),
    (0x1a0, 0x1a0, ReadWrite, "miscellaneous features"),
    (0x1c4, 0x1c5, ReadWrite, "extended feature disable (AMX)"),
    (
        0x1d9,
        0x1d9,
        ReadWrite,
        "debug control: single-stepping of branches",
    ),
    (0x200, 0x20f, ReadWrite, "MTRRs, variable"),
    (0x250, 0x250, ReadWrite, "MTRRs, fixed: 64 KiB"),
    (0x258, 0x259, ReadWrite, "MTRRs, fixed: 16 KiB"),
    (0x268, 0x26f, ReadWrite, "MTRRs, fixed: 4 KiB"),
    (0x277, 0x277, ReadWrite, "page attribute table"),
    (
        0x280,
        0x29f,
        ReadWrite,
        "machine check: corrected errors' interrupts",
    ),
    (0x2ff, 0x2ff, ReadWrite, "MTRRs, default type"),
    (0x345, 0x345, Read, "performance capabilities, which are none"),
    (0x400, 0x47f, ReadWrite, "machine check banks"),
    (0x6a0, 0x6a8, ReadWrite, "control-flow enforcement"),
    (0x6e0, 0x6e0, ReadWrite, "TSC deadline"),
    (0xda0, 0xda0, ReadWrite, "supervisor's extended state"),
    (
        0x4b56_4d00,
        0x4b56_4d08,
        ReadWrite,
        "KVM: clock, async page faults, steal time, PV EOI",
    ),
    (0xc000_0080, 0xc000_0084, ReadWrite, "EFER, SYSCALL"),
    (
        0xc000_0100,
        0xc000_0103,
        ReadWrite,
        "FS, GS, kernel's GS, TSC_AUX",
    ),
    (0xc001_0010, 0xc001_0010, ReadWrite, "AMD: system configuration"),
    (0xc001_0015, 0xc001_0015, ReadWrite, "AMD: hardware configuration"),
    (0xc001_001a, 0xc001_001a, Read, "AMD: top of memory"),
    (0xc001_001d, 0xc001_001d, Read, "AMD: top of memory above 4 GiB"),
    (
        0xc001_001f,
        0xc001_001f,
        ReadWrite,
        "AMD: northbridge configuration",
    ),
    (
        0xc001_0055,
        0xc001_0055,
        Read,
        "AMD: pending interrupts (erratum 400)",
    ),
    (0xc001_0058, 0xc001_0058, Read, "AMD: base of PCI configuration"),
    (
        0xc001_011f,
        0xc001_011f,
        ReadWrite,
        "speculation: store bypass, virtual",
    ),
    (
        0xc001_0140,
        0xc001_0141,
        Read,
        "AMD: errata's workarounds that the OS may know",
    ),
    (
        0xc001_1020,
        0xc001_102f,
        ReadWrite,
        "AMD: units' configuration, errata's workarounds",
    ),
];

/// Where the table's registers are: a bitmap each, of at most 12288 bits.
const WINDOWS: [(u32, u32); 4] = [
    (0, 0x2000),
    (0x4b56_4d00, 0x100),
    (0xc000_0000, 0x2000),
    (0xc001_0000, 0x2000),
];

/// Puts the filter on the machine, before it has vCPUs.
///
/// # Errors
/// KVM refused it.
pub fn filter(vm: &VmFd) -> std::io::Result<()> {
    if !vm.check_extension(Cap::X86MsrFilter) {
        tracing::warn!("this KVM cannot filter model-specific registers: the guest reaches all that it has");
        return Ok(());
    }
    let bitmaps = WINDOWS.map(|window| [bitmap(window, Access::Read), bitmap(window, Access::ReadWrite)]);
    let kinds = [MsrFilterRangeFlags::READ, MsrFilterRangeFlags::WRITE];
    let ranges: Vec<_> = WINDOWS
        .iter()
        .zip(&bitmaps)
        .flat_map(|(&(base, msr_count), bitmaps)| {
            kinds
                .iter()
                .zip(bitmaps)
                .map(move |(&flags, bitmap)| MsrFilterRange {
                    flags,
                    base,
                    msr_count,
                    bitmap,
                })
        })
        .collect();
    Ok(vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)?)
}

/// A bit for each register of the window that allows at least `access`.
fn bitmap((base, count): (u32, u32), access: Access) -> Vec<u8> {
    let mut bitmap = vec![0; count.div_ceil(8) as usize];
    let allowed = ALLOWED
        .iter()
        .filter(|(_, _, allowed, _)| access == Read || *allowed == ReadWrite)
        .flat_map(|&(first, last, _, _)| first..=last);
    for bit in allowed.filter_map(|msr| msr.checked_sub(base)) {
        if let Some(byte) = bitmap.get_mut(bit as usize / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
    bitmap
}

/// Whether a guest may read the register, and so count on what is in it.
#[must_use]
pub fn is_visible(msr: u32) -> bool {
    ALLOWED
        .iter()
        .any(|&(first, last, _, _)| (first..=last).contains(&msr))
}

#[cfg(test)]
mod tests;
