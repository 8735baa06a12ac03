//! The virtual machine generation id: 128 random bits in guest memory that change whenever the guest's past forks,
//! so that two clones of one snapshot do not draw the same "random" numbers.
//!
//! The DSDT has a device that says where the id is ([`ADDRESS`]), and the Generic Event Device notifies it when the
//! id has changed; Linux then reseeds its random number generator. Microsoft, "Virtual Machine Generation ID",
//! 2018; Linux, `drivers/virt/vmgenid.c`.
//!
//! Each boot begins with an id of its own. Whoever restores a snapshot calls [`VmGenId::renew`] once the memory and
//! the interrupt controllers are as they were, and before the first vCPU runs.

use std::io;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestMemory;
use crate::random;

/// Guest physical address of the id: a page of its own in the BIOS area, which the memory map reserves. The
/// specification asks for 8-byte alignment in cacheable memory that the guest will not use for itself.
pub const ADDRESS: u64 = 0xd_0000;
/// Bytes of the id.
const SIZE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("drawing a generation id")]
    Random(#[source] io::Error),
    #[error("writing the generation id into guest memory")]
    Memory(#[from] GuestMemoryError),
    #[error("telling the guest of its new generation id")]
    Notify(#[source] io::Error),
}

/// Puts a fresh id into memory that no guest has run in yet.
///
/// # Errors
/// The host has no random bytes, or the memory ends below [`ADDRESS`], which no [`Layout`](crate::memory::Layout)
/// does.
pub fn write(memory: &GuestMemory) -> Result<(), RenewError> {
    let id: [u8; SIZE] = random::array().map_err(RenewError::Random)?;
    Ok(memory.write_slice(&id, GuestAddress(ADDRESS))?)
}

/// The id of a machine whose guest looks at it.
pub struct VmGenId {
    memory: GuestMemory,
    interrupt: EventFd,
}

impl VmGenId {
    /// `interrupt` is the line into the Generic Event Device.
    #[must_use]
    pub fn new(memory: GuestMemory, interrupt: EventFd) -> Self {
        Self { memory, interrupt }
    }

    /// Gives the machine a new id and tells the guest.
    ///
    /// # Errors
    /// See [`RenewError`]; after [`RenewError::Notify`] the id is new, and the guest does not know.
    pub fn renew(&self) -> Result<(), RenewError> {
        write(&self.memory)?;
        self.interrupt.write(1).map_err(RenewError::Notify)
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::memory::{Layout, MIB};

    #[test]
    fn a_new_generation_is_another_id_and_an_interrupt() {
        let memory = Layout::new(32 * MIB).map().unwrap();
        let id = || memory.read_obj::<u128>(GuestAddress(ADDRESS)).unwrap();
        write(&memory).unwrap();
        let first = id();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        VmGenId::new(memory.clone(), interrupt.try_clone().unwrap())
            .renew()
            .unwrap();
        assert_eq!(interrupt.read().unwrap(), 1);
        assert!(first != 0 && id() != 0 && id() != first);
    }
}
