//! What a hostile driver can do to any queue. The device must say NEEDS_RESET, and work again after a reset.

use crate::memory::allocate;
use crate::report::Outcome;
use crate::same;
use crate::virtio::ring::descriptor_flag::{INDIRECT, NEXT, WRITE};
use crate::virtio::ring::{Ring, table_entry};
use crate::virtio::{CONFIG_INTERRUPT, Device, feature};

/// The ring to break, some free memory, and where memory ends.
struct Victim<'a> {
    ring: &'a Ring,
    /// 64 KiB.
    data: u64,
    low_ram_end: u64,
}

pub struct Breakage {
    pub name: &'static str,
    break_it: fn(&Victim<'_>),
}

const DATA_LEN: u64 = 64 << 10;

/// Breaks each queue of the device in turn.
pub fn check(
    device: &Device,
    works: fn(&Device) -> Outcome,
    breakage: &Breakage,
    low_ram_end: u64,
) -> Outcome {
    for queue in device.eager_queues() {
        crate::memory::free_all();
        let ring = device.start_for(!feature::EVENT_IDX, queue)?;
        let before = device.interrupts(CONFIG_INTERRUPT);
        (breakage.break_it)(&Victim {
            ring: &ring,
            data: allocate(DATA_LEN),
            low_ram_end,
        });
        ring.kick();
        device.wait_needs_reset(before)?;
        same!(ring.used_index(), 0, "queue {queue}: used index");
        works(device)?;
    }
    device.reset()
}

macro_rules! breakages {
    ($($name:ident: |$victim:ident| $break_it:block)*) => {
        pub const BREAKAGES: &[Breakage] = &[
            $(Breakage { name: stringify!($name), break_it: |$victim| $break_it }),*
        ];
    };
}

impl Victim<'_> {
    /// One descriptor, offered.
    fn lone(&self, address: u64, len: u32, flags: u16) {
        self.ring.descriptor(0, address, len, flags, 0);
        self.ring.offer(0);
    }
}

breakages! {
    a_chain_that_loops: |victim| {
        victim.ring.descriptor(0, victim.data, 16, NEXT, 1);
        victim.ring.descriptor(1, victim.data, 16, NEXT, 0);
        victim.ring.offer(0);
    }
    a_descriptor_that_is_its_own_next: |victim| {
        victim.lone(victim.data, 16, WRITE | NEXT);
    }
    a_head_beyond_the_table: |victim| {
        victim.ring.offer(victim.ring.size);
    }
    a_wild_head: |victim| {
        victim.ring.offer(0xffff);
    }
    a_next_beyond_the_table: |victim| {
        victim.ring.descriptor(0, victim.data, 16, NEXT, 0xffff);
        victim.ring.offer(0);
    }
    a_buffer_behind_memory: |victim| {
        victim.lone(victim.low_ram_end, 64, WRITE);
    }
    a_buffer_that_runs_out_of_memory: |victim| {
        victim.lone(victim.low_ram_end - 8, 64, WRITE);
    }
    a_buffer_in_device_memory: |victim| {
        victim.lone(crate::cpu::LOCAL_APIC, 64, WRITE);
    }
    a_buffer_at_the_end_of_the_address_space: |victim| {
        victim.lone(u64::MAX - 3, 64, WRITE);
    }
    a_huge_buffer: |victim| {
        victim.lone(victim.data, u32::MAX, WRITE);
    }
    an_empty_buffer: |victim| {
        victim.lone(victim.data, 0, WRITE);
    }
    a_readable_buffer_behind_a_writable_one: |victim| {
        victim.ring.descriptor(0, victim.data, 64, WRITE | NEXT, 1);
        victim.ring.descriptor(1, victim.data + 64, 64, 0, 0);
        victim.ring.offer(0);
    }
    an_available_index_that_jumped: |victim| {
        let index = victim.ring.available_index();
        victim.ring.set_available_index(index.wrapping_add(victim.ring.size + 1));
    }
    an_available_index_that_ran_back: |victim| {
        let index = victim.ring.available_index();
        victim.ring.set_available_index(index.wrapping_sub(1));
    }
    an_indirect_table_behind_memory: |victim| {
        victim.lone(victim.low_ram_end, 32, INDIRECT);
    }
    an_indirect_table_of_no_whole_descriptors: |victim| {
        victim.lone(victim.data, 17, INDIRECT);
    }
    an_empty_indirect_table: |victim| {
        victim.lone(victim.data, 0, INDIRECT);
    }
    a_huge_indirect_table: |victim| {
        victim.lone(victim.data, 0xffff_fff0, INDIRECT);
    }
    an_indirect_table_in_an_indirect_table: |victim| {
        table_entry(victim.data, 0, victim.data, 16, INDIRECT, 0);
        victim.lone(victim.data, 16, INDIRECT);
    }
    an_indirect_chain_that_loops: |victim| {
        table_entry(victim.data, 0, victim.data, 16, NEXT, 1);
        table_entry(victim.data, 1, victim.data, 16, NEXT, 0);
        victim.lone(victim.data, 32, INDIRECT);
    }
    an_indirect_chain_that_is_too_long: |victim| {
        for index in 0..1000 {
            table_entry(victim.data, index, victim.data + 32768, 1, NEXT, index + 1);
        }
        table_entry(victim.data, 1000, victim.data + 32768, 1, 0, 0);
        victim.lone(victim.data, 1001 * 16, INDIRECT);
    }
}
