//! What a vCPU is before its first instruction: CPUID, model-specific registers, long mode.
//!
//! CPUID is what KVM can give on this host, cut down to a named [`Model`], with the [`Topology`] of the machine
//! in it. `msrs` says which model-specific registers the guest may touch.

mod entry;
mod features;
mod leaves;
mod models;
pub(crate) mod msrs;
mod saved;
mod topology;

use std::arch::x86_64::__cpuid;
use std::io;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

pub use entry::{enter, set_memory_type};
use leaves::Leaves;
pub use models::Model;
pub use saved::check_saved;
pub use topology::Topology;

/// What the guest's processors look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuSpec {
    pub model: Model,
    /// 1 or 2; with 2, the number of vCPUs is even.
    pub threads_per_core: u8,
}

impl Default for CpuSpec {
    fn default() -> Self {
        Self {
            model: Model::Host,
            threads_per_core: 1,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    #[error(
        "{vcpus} vCPUs with {threads_per_core} threads a core; it may be 1, or 2 with an even number of vCPUs"
    )]
    Topology { vcpus: u8, threads_per_core: u8 },
    #[error("CPU model {model}: this host lacks {missing}")]
    Missing { model: Model, missing: String },
    #[error("the snapshot's processors have {missing}, which this host lacks")]
    Lost { missing: String },
    #[error("the snapshot's processors are {theirs:?}, and this host's {ours:?}")]
    OtherVendor { theirs: String, ours: String },
    #[error("asking KVM for CPUID")]
    Supported(#[source] io::Error),
    #[error("setting the CPUID of vCPU {vcpu}")]
    Refused {
        vcpu: u8,
        #[source]
        source: io::Error,
    },
}

/// The CPUID of a machine.
pub struct CpuModel {
    leaves: Leaves,
    topology: Topology,
}

impl CpuModel {
    /// # Errors
    /// The host cannot give what `spec` wants.
    pub fn new(kvm: &Kvm, spec: &CpuSpec, vcpus: u8) -> Result<Self, CpuError> {
        Self::of(host_leaves(kvm)?, spec, vcpus)
    }

    fn of(mut leaves: Leaves, spec: &CpuSpec, vcpus: u8) -> Result<Self, CpuError> {
        let topology = Topology::new(vcpus, spec.threads_per_core)?;
        spec.model.apply(&mut leaves)?;
        leaves.hide_performance_counters();
        leaves.hide_nested_virtualization();
        topology.describe(&mut leaves);
        Ok(Self { leaves, topology })
    }

    /// Gives vCPU `id` its CPUID.
    ///
    /// # Errors
    /// KVM refused it.
    pub fn apply(&mut self, vcpu: &VcpuFd, id: u8) -> Result<(), CpuError> {
        let refused = |source| CpuError::Refused { vcpu: id, source };
        self.topology.name(&mut self.leaves, id);
        let cpuid = CpuId::from_entries(self.leaves.entries())
            .map_err(|_| refused(io::Error::other("it has too many leaves")))?;
        vcpu.set_cpuid2(&cpuid).map_err(|error| refused(error.into()))
    }
}

/// All that a guest can have here.
fn host_leaves(kvm: &Kvm) -> Result<Leaves, CpuError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| CpuError::Supported(error.into()))?;
    let mut host = Leaves::new(supported.as_slice());
    host.set(features::HYPERVISOR, true);
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        host.set(features::TSC_DEADLINE, true);
    }
    if is_emulated() {
        host.set(features::CX16, false);
    }
    Ok(host)
}

/// Whether KVM runs without a processor's virtualization extensions, interpreting the guest's kernel: there
/// CMPXCHG16B is missing, and a kernel that saw it would use it. CPUID tells even from inside a jail.
fn is_emulated() -> bool {
    const ECX_VMX: u32 = 1 << 5;
    const AMD_ECX_SVM: u32 = 1 << 2;
    let vmx = __cpuid(1).ecx & ECX_VMX != 0;
    let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & AMD_ECX_SVM != 0;
    !vmx && !svm
}

#[cfg(test)]
mod tests;
