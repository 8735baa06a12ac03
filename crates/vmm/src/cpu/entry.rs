//! Where the first instruction is: long mode at a kernel's entry or protected mode at a firmware's, with memory that is
//! cached.

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::boot::{Entry, tables};

const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// Segment types: code that can be read, data that can be written, a 32-bit task in use.
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const BUSY_TASK: u8 = 0xb;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Puts the boot processor at the entry. The other processors wait for their SIPI as KVM makes them.
///
/// # Errors
/// KVM refused the registers.
pub fn enter(vcpu: &VcpuFd, entry: &Entry) -> io::Result<()> {
    match *entry {
        Entry::Linux { address, boot_params } => enter_long_mode(vcpu, address, boot_params),
        Entry::Firmware { address, start_info } => enter_protected_mode(vcpu, address, start_info),
    }
}

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Paging on, flat segments, RSI at the boot parameters (Linux boot protocol, "64-bit boot protocol").
fn enter_long_mode(vcpu: &VcpuFd, address: u64, boot_params: u64) -> io::Result<()> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = segment(tables::CODE_SELECTOR, CODE, true);
    let data = segment(tables::DATA_SELECTOR, DATA, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = tables::GDT_ADDRESS;
    sregs.gdt.limit = tables::GDT_LIMIT;
    sregs.cr3 = tables::PML4_ADDRESS;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: address,
        rsi: boot_params,
        rsp: tables::STACK_TOP,
        rflags: 2,
        ..Default::default()
    })?;
    Ok(())
}

/// Paging off, flat 32-bit segments, a task segment of the least size, EBX at the start information (Xen, "x86/HVM direct
/// boot ABI"). The descriptor tables are the entered program's to load.
fn enter_protected_mode(vcpu: &VcpuFd, address: u32, start_info: u32) -> io::Result<()> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = segment(tables::CODE_SELECTOR, CODE, false);
    let data = segment(tables::DATA_SELECTOR, DATA, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        limit: 0x67,
        type_: BUSY_TASK,
        present: 1,
        ..Default::default()
    };
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: address.into(),
        rbx: start_info.into(),
        rflags: 2,
        ..Default::default()
    })?;
    Ok(())
}

/// Memory is write-back unless page tables say otherwise, as firmware leaves it.
///
/// # Errors
/// KVM refused the register.
pub fn set_memory_type(vcpu: &VcpuFd) -> io::Result<()> {
    let msrs = Msrs::from_entries(&[kvm_msr_entry {
        index: MSR_MTRR_DEF_TYPE,
        data: MTRR_ENABLE | MTRR_WRITE_BACK,
        ..Default::default()
    }])
    .map_err(|_| io::Error::other("MSR list"))?;
    match vcpu.set_msrs(&msrs)? {
        1 => Ok(()),
        _ => Err(io::Error::other("KVM refused the default memory type")),
    }
}
