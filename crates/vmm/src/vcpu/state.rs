//! All that a vCPU is between two instructions, read from KVM and given back to it.
//!
//! The order matters, for KVM derives some of it from the rest (Linux, Documentation/virt/kvm/api.rst): reading
//! the MP state first lets KVM take in a pending INIT or SIPI; CPUID is set before the registers that it allows;
//! the local APIC before the TSC deadline, which only its timer mode gives a meaning; pending events last.

use std::io;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, Xsave, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use crate::cpu::msrs;
use crate::snapshot::StateError;

/// MSRs that one call takes; KVM's own limit is 256.
const BATCH: usize = 128;

/// A vCPU's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    /// In the processor's own layout, beginning with the legacy FXSAVE area.
    xsave: Vec<u32>,
    debug_regs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// What this host's KVM keeps of a vCPU.
pub struct Shape {
    /// Numbers of the MSRs that may be saved.
    pub msrs: Vec<u32>,
    /// 32-bit words that the extended state takes beyond the classical 4096 bytes.
    pub xsave_extra: usize,
}

impl VcpuState {
    /// Reads the state of a vCPU that does not run.
    ///
    /// # Errors
    /// KVM refused.
    pub fn save(vcpu: &VcpuFd, shape: &Shape) -> Result<Self, StateError> {
        let save = || -> io::Result<Self> {
            Ok(Self {
                mp_state: vcpu.get_mp_state()?,
                regs: vcpu.get_regs()?,
                sregs: vcpu.get_sregs()?,
                xcrs: vcpu.get_xcrs()?,
                xsave: get_xsave(vcpu, shape)?,
                debug_regs: vcpu.get_debug_regs()?,
                lapic: vcpu.get_lapic()?,
                tsc_khz: vcpu.get_tsc_khz()?,
                cpuid: vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES)?.as_slice().to_vec(),
                msrs: get_msrs(vcpu, &shape.msrs)?,
                events: vcpu.get_vcpu_events()?,
            })
        };
        save().map_err(StateError::host("reading a vCPU's state"))
    }

    /// Gives a fresh vCPU this state.
    ///
    /// # Errors
    /// KVM refused: this host's processor lacks something, or the state is no vCPU's.
    pub fn restore(&self, vcpu: &VcpuFd, shape: &Shape) -> Result<(), StateError> {
        let cpuid = CpuId::from_entries(&self.cpuid)
            .map_err(|_| StateError::Unfit(format!("a vCPU has {} CPUID entries", self.cpuid.len())))?;
        let set = |what, result: Result<(), vmm_sys_util::errno::Error>| {
            result.map_err(|error| StateError::Host {
                doing: what,
                source: error.into(),
            })
        };
        set("setting a vCPU's CPUID", vcpu.set_cpuid2(&cpuid))?;
        if vcpu.get_tsc_khz().ok() != Some(self.tsc_khz) {
            set("scaling a vCPU's TSC", vcpu.set_tsc_khz(self.tsc_khz))?;
        }
        set("setting a vCPU's MP state", vcpu.set_mp_state(self.mp_state))?;
        set("setting a vCPU's registers", vcpu.set_regs(&self.regs))?;
        set("setting a vCPU's system registers", vcpu.set_sregs(&self.sregs))?;
        self.set_xsave(vcpu, shape)?;
        set("setting a vCPU's XCRs", vcpu.set_xcrs(&self.xcrs))?;
        set(
            "setting a vCPU's debug registers",
            vcpu.set_debug_regs(&self.debug_regs),
        )?;
        set("setting a vCPU's local APIC", vcpu.set_lapic(&self.lapic))?;
        set_msrs(vcpu, &self.msrs)?;
        set("setting a vCPU's events", vcpu.set_vcpu_events(&self.events))
    }

    pub(crate) fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    fn set_xsave(&self, vcpu: &VcpuFd, shape: &Shape) -> Result<(), StateError> {
        let doing = "setting a vCPU's extended state";
        let too_large = || {
            StateError::Unfit(format!(
                "a vCPU has {} words of extended state, and this processor {} more than 1024",
                self.xsave.len(),
                shape.xsave_extra
            ))
        };
        let mut xsave = new_xsave(shape).map_err(StateError::host(doing))?;
        let legacy = kvm_xsave::default().region.len();
        let (head, tail) = self.xsave.split_at_checked(legacy).ok_or_else(too_large)?;
        let room = xsave.as_mut_slice().get_mut(..tail.len()).ok_or_else(too_large)?;
        room.copy_from_slice(tail);
        // SAFETY: the length of the flexible array is not changed.
        let whole = unsafe { xsave.as_mut_fam_struct() };
        whole.xsave.region.copy_from_slice(head);
        // SAFETY: KVM reads as many bytes as it said this machine's state has, and `new_xsave` made so many.
        unsafe { vcpu.set_xsave2(&xsave) }.map_err(|error| StateError::Host {
            doing,
            source: error.into(),
        })
    }
}

fn new_xsave(shape: &Shape) -> io::Result<Xsave> {
    Xsave::new(shape.xsave_extra).map_err(|_| io::Error::other("the extended state is too large"))
}

fn get_xsave(vcpu: &VcpuFd, shape: &Shape) -> io::Result<Vec<u32>> {
    let mut xsave = new_xsave(shape)?;
    if shape.xsave_extra == 0 {
        return Ok(vcpu.get_xsave()?.region.to_vec());
    }
    // SAFETY: KVM writes as many bytes as it said this machine's state has, and `new_xsave` made so many.
    unsafe { vcpu.get_xsave2(&mut xsave)? };
    let mut words = xsave.as_fam_struct_ref().xsave.region.to_vec();
    words.extend_from_slice(xsave.as_slice());
    Ok(words)
}

/// Reads those of `numbers` that KVM lets us: its list names some that this processor or CPUID does not have.
fn get_msrs(vcpu: &VcpuFd, numbers: &[u32]) -> io::Result<Vec<kvm_msr_entry>> {
    let mut found = Vec::with_capacity(numbers.len());
    let mut left = numbers;
    while !left.is_empty() {
        let batch = &left[..left.len().min(BATCH)];
        let entries: Vec<_> = batch.iter().map(|&index| entry(index)).collect();
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| io::Error::other("MSR list"))?;
        // KVM stops at the first that it refuses.
        let read = vcpu.get_msrs(&mut msrs)?.min(batch.len());
        found.extend(msrs.as_slice().iter().take(read));
        left = &left[(read + usize::from(read < batch.len()))..];
    }
    Ok(found)
}

/// KVM does not take all that it gives. A register that has its value already is as good as set, and one that the
/// filter keeps from the guest is nothing to it; any other would be a surprise to the guest.
fn set_msrs(vcpu: &VcpuFd, mut left: &[kvm_msr_entry]) -> Result<(), StateError> {
    let failed = |error: io::Error| StateError::host("setting a vCPU's MSRs")(error);
    while !left.is_empty() {
        let batch = &left[..left.len().min(BATCH)];
        let msrs = Msrs::from_entries(batch).map_err(|_| failed(io::Error::other("MSR list")))?;
        let written = vcpu.set_msrs(&msrs).map_err(|error| failed(error.into()))?;
        let written = written.min(batch.len());
        if let Some(refused) = batch.get(written) {
            let here = get_msrs(vcpu, &[refused.index]).map_err(failed)?;
            let same = here.first().is_some_and(|msr| msr.data == refused.data);
            if !same && msrs::is_visible(refused.index) {
                return Err(StateError::Unfit(format!(
                    "this host does not take the value {:#x} of its MSR {:#x}",
                    refused.data, refused.index
                )));
            }
            tracing::debug!(
                msr = format_args!("{:#x}", refused.index),
                "KVM does not take an MSR back"
            );
            left = &left[written + 1..];
        } else {
            left = &left[written..];
        }
    }
    Ok(())
}

fn entry(index: u32) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        ..Default::default()
    }
}
