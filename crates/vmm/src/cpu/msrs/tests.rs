use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::*;

const RAM: usize = 0x3000;
const PROGRAM: u64 = 0x1000;
const HANDLER: u16 = 0x1800;
/// Interrupt vector 13, of four bytes each.
const GENERAL_PROTECTION: u64 = 13 * 4;
const PORT: u16 = 0x77;

/// Real mode: touches the register in ECX, then says `y`; #GP's handler says `n`.
fn program(access: Access) -> Vec<u8> {
    let touch: &[u8] = match access {
        Read => &[0x0f, 0x32],                              // rdmsr
        ReadWrite => &[0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30], // xor ax, ax; xor dx, dx; wrmsr
    };
    [touch, &[0xb0, b'y', 0xe6, PORT as u8, 0xf4]].concat() // mov al, 'y'; out PORT, al; hlt
}

/// Whether the guest may, or `None` without KVM.
fn guest_may(access: Access, msr: u32) -> Option<bool> {
    let kvm = Kvm::new().ok()?;
    let vm = kvm.create_vm().unwrap();
    filter(&vm).unwrap();
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    let host = ram.get_host_address(GuestAddress(0)).unwrap();
    let slot = kvm_userspace_memory_region {
        memory_size: RAM as u64,
        userspace_addr: host as u64,
        ..Default::default()
    };
    // SAFETY: `ram` outlives the vCPU, which alone uses the slot.
    unsafe { vm.set_user_memory_region(slot).unwrap() };
    ram.write_slice(&program(access), GuestAddress(PROGRAM)).unwrap();
    let refused = [0xb0, b'n', 0xe6, PORT as u8, 0xf4];
    ram.write_slice(&refused, GuestAddress(HANDLER.into())).unwrap();
    ram.write_slice(&HANDLER.to_le_bytes(), GuestAddress(GENERAL_PROTECTION))
        .unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let cpuid = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .unwrap();
    vcpu.set_cpuid2(&cpuid).unwrap();
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rsp, regs.rcx) = (PROGRAM, 0x2800, msr.into());
    vcpu.set_regs(&regs).unwrap();
    loop {
        match vcpu.run().unwrap() {
            VcpuExit::IoOut(PORT, b"y") => return Some(true),
            VcpuExit::IoOut(PORT, b"n") => return Some(false),
            VcpuExit::Intr => {}
            exit => panic!("{exit:?}"),
        }
    }
}

#[test]
fn the_guest_reaches_what_the_table_allows_and_nothing_else() {
    const TSC: u32 = 0x10;
    const APIC_BASE: u32 = 0x1b;
    const SMI_COUNT: u32 = 0x34;
    const UNKNOWN: u32 = 0xdead;
    const HYPER_V_GUEST_ID: u32 = 0x4000_0000;
    const VM_CR: u32 = 0xc001_0114;
    let Some(allowed) = guest_may(Read, TSC) else {
        eprintln!("SKIPPED: the_guest_reaches_what_the_table_allows: absent: /dev/kvm");
        return;
    };
    assert!(allowed);
    assert_eq!(guest_may(ReadWrite, TSC), Some(true));
    assert_eq!(guest_may(Read, APIC_BASE), Some(true));
    for msr in [SMI_COUNT, UNKNOWN, HYPER_V_GUEST_ID, VM_CR] {
        assert_eq!(guest_may(Read, msr), Some(false), "reading {msr:#x}");
        assert_eq!(guest_may(ReadWrite, msr), Some(false), "writing {msr:#x}");
    }
}

#[test]
fn the_windows_hold_the_whole_table_in_order() {
    for &(first, last, access, what) in ALLOWED {
        let window = WINDOWS
            .into_iter()
            .find(|(base, count)| (*base..base + count).contains(&first))
            .expect(what);
        assert!(first <= last && last < window.0 + window.1, "{what}");
        for msr in first..=last {
            let bit = (msr - window.0) as usize;
            let set = |kind| bitmap(window, kind)[bit / 8] >> (bit % 8) & 1 == 1;
            assert_eq!((set(Read), set(ReadWrite)), (true, access == ReadWrite), "{what}");
        }
    }
    assert!(ALLOWED.is_sorted_by(|before, after| before.1 < after.0));
    assert!(WINDOWS.iter().all(|(_, count)| count / 8 <= 0x600), "KVM's limit");
}
