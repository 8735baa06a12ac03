use std::collections::BTreeSet;

use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::bitmap::Bitmap;
use vm_memory::{Bytes, GuestMemoryBackend as _, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::super::GuestMemory;
use super::super::interrupt::QueueInterrupt;
use super::super::queue::{QueueAddresses, QueueError, Virtqueue};
use super::*;

/// Two regions with a hole between them.
const LOW_END: u64 = 0x8000;
const HIGH_START: u64 = 0x1_0000;
const HIGH_END: u64 = 0x1_8000;
const PAGE: u64 = 4096;
/// Where tests put their tables: direct, indirect.
const TABLE: u64 = 0x7000;
const INDIRECT_TABLE: u64 = 0x7801;
const AVAILABLE: u64 = 0x7200;
const USED: u64 = 0x7400;
const DESCRIPTOR_LEN: usize = 16;
const ENTRIES: u16 = 16;
const MOST: usize = 8;

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

fn memory() -> GuestMemory {
    let region = |start, end| (GuestAddress(start), (end - start) as usize);
    GuestMemory::from_ranges(&[region(0, LOW_END), region(HIGH_START, HIGH_END)]).unwrap()
}

fn put(memory: &GuestMemory, table: u64, index: u16, (address, len, flags, next): (u64, u32, u16, u16)) {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    let at = table + DESCRIPTOR_LEN as u64 * u64::from(index);
    memory.write_slice(&bytes, GuestAddress(at)).unwrap();
}

/// The chain at `head`, as a device pops it.
fn parse(memory: &GuestMemory, head: u16) -> Result<Chain, Malformed> {
    let addresses = QueueAddresses {
        size: ENTRIES,
        descriptor_table: TABLE,
        available_ring: AVAILABLE,
        used_ring: USED,
    };
    let valid = addresses.validate(ENTRIES, false, memory).unwrap();
    let interrupt = QueueInterrupt::new(Default::default(), Default::default());
    let mut queue = Virtqueue::new(0, valid, interrupt, EventFd::new(0).unwrap());
    memory.write_obj(head, GuestAddress(AVAILABLE + 4)).unwrap();
    memory.write_obj(1_u16, GuestAddress(AVAILABLE + 2)).unwrap();
    let mut chain = Chain::default();
    match queue.pop(&mut chain, MOST) {
        Ok(popped) => {
            assert!(popped);
            Ok(chain)
        }
        Err(QueueError::Malformed { source, .. }) => Err(source),
        Err(QueueError::Ring { source, .. }) => panic!("{source}"),
    }
}

/// What the chain at `head` says by the rules: address, length, writable.
fn expected(memory: &GuestMemory, head: u16) -> Option<Vec<(u64, u32, bool)>> {
    let (mut table, mut entries, mut index) = (TABLE, u32::from(ENTRIES), u32::from(head));
    let mut is_indirect = false;
    let mut buffers: Vec<(u64, u32, bool)> = Vec::new();
    loop {
        let at = table.checked_add(DESCRIPTOR_LEN as u64 * u64::from(index))?;
        if index >= entries || !is_ram(at, DESCRIPTOR_LEN as u64) {
            return None;
        }
        let [address, rest]: [u64; 2] = memory.read_obj(GuestAddress(at)).unwrap();
        let (len, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u32);
        if flags & INDIRECT != 0 {
            // One table, of whole descriptors (2.7.5.3.1).
            let count = len / DESCRIPTOR_LEN as u32;
            if is_indirect || !len.is_multiple_of(DESCRIPTOR_LEN as u32) || count > u32::from(u16::MAX) {
                return None;
            }
            is_indirect = true;
            (table, entries, index) = (address, count, 0);
            continue;
        }
        let writable = flags & WRITE != 0;
        let follows_writable = buffers.last().is_some_and(|last| last.2);
        if !is_ram(address, len.into()) && len > 0 || follows_writable && !writable || buffers.len() == MOST {
            return None;
        }
        buffers.push((address, len, writable));
        if flags & NEXT == 0 {
            return Some(buffers);
        }
        index = next;
    }
}

fn is_ram(address: u64, len: u64) -> bool {
    let within = |start, end| address >= start && len <= end - start && address - start <= end - start - len;
    within(0, LOW_END) || within(HIGH_START, HIGH_END)
}

/// A buffer in RAM, perhaps an empty one.
fn buffer() -> impl Strategy<Value = (u64, u32)> {
    let len = prop_oneof![Just(0), 1..3 * PAGE as u32];
    (prop_oneof![0..0x4000_u64, HIGH_START..HIGH_START + 0x4000], len)
}

/// What a hostile driver writes: mostly near the edges of what is allowed.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        0..LOW_END,
        LOW_END - 2..LOW_END + 2,
        HIGH_START - 2..HIGH_END + 2,
        Just(TABLE),
        Just(INDIRECT_TABLE),
        any::<u64>(),
    ];
    let len = prop_oneof![0..64_u32, Just(16), Just(256), any::<u32>()];
    (address, len, 0..8_u16, 0..ENTRIES + 2)
}

proptest! {
    #[test]
    fn a_well_formed_chain_is_what_the_driver_wrote(
        buffers in prop::collection::vec(buffer(), 1..=MOST),
        readable in 0..=MOST,
        indirect: bool,
    ) {
        let memory = memory();
        let table = if indirect { INDIRECT_TABLE } else { TABLE };
        let readable = readable.min(buffers.len());
        for (index, &(address, len)) in (0..).zip(&buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if usize::from(index) < readable { 0 } else { WRITE };
            put(&memory, table, index, (address, len, flags, index + 1));
        }
        if indirect {
            let len = (DESCRIPTOR_LEN * buffers.len()) as u32;
            put(&memory, TABLE, 0, (INDIRECT_TABLE, len, INDIRECT, 0));
        }
        let chain = parse(&memory, 0).unwrap();
        let found = |buffers: &Buffers| -> Vec<_> { buffers.ranges().map(|(at, len)| (at.0, len as u32)).collect() };
        prop_assert_eq!(found(&chain.readable), &buffers[..readable]);
        prop_assert_eq!(found(&chain.writable), &buffers[readable..]);
    }

    /// Whatever the tables say: an end, no more buffers than allowed, and each of them in RAM.
    #[test]
    fn any_chain_is_bounded_and_in_memory(
        direct in prop::collection::vec(descriptor(), usize::from(ENTRIES)),
        indirect in prop::collection::vec(descriptor(), usize::from(ENTRIES)),
    ) {
        let memory = memory();
        for (table, descriptors) in [(TABLE, direct), (INDIRECT_TABLE, indirect)] {
            for (index, descriptor) in (0..).zip(descriptors) {
                put(&memory, table, index, descriptor);
            }
        }
        for head in 0..ENTRIES + 2 {
            let chain = parse(&memory, head).ok();
            let found = chain.as_ref().map(|chain| {
                let all = |buffers: &Buffers, writable: bool| -> Vec<_> {
                    buffers.ranges().map(|(at, len)| (at.0, len as u32, writable)).collect()
                };
                [all(&chain.readable, false), all(&chain.writable, true)].concat()
            });
            prop_assert_eq!(found, expected(&memory, head));
            let Some(chain) = chain else { continue };
            prop_assert!(head < ENTRIES);
            let buffers: Vec<_> = chain.readable.ranges().chain(chain.writable.ranges()).collect();
            prop_assert!((1..=MOST).contains(&buffers.len()));
            for (address, len) in buffers {
                prop_assert!(len == 0 || is_ram(address.0, len), "{:#x} + {:#x}", address.0, len);
            }
        }
    }

    /// Empty buffers among them, too: a diff snapshot must not miss what lies behind those.
    #[test]
    fn what_was_written_is_marked_and_nothing_else(
        buffers in prop::collection::vec(buffer(), 1..=MOST),
        written in 0..8 * PAGE,
    ) {
        let memory = memory();
        let queue_memory = QueueMemory::new(&memory, GuestAddress(USED)).unwrap();
        let mut writable = Buffers::default();
        for &(address, len) in &buffers {
            writable.push(Segment::at(GuestAddress(address), len, &queue_memory).unwrap());
        }
        writable.mark_written(&queue_memory, written as u32);
        let (mut expected, mut left) = (BTreeSet::new(), written);
        for &(address, len) in &buffers {
            let part = left.min(len.into());
            expected.extend((address..address + part).map(|byte| byte / PAGE));
            left -= part;
        }
        let marked: BTreeSet<_> = memory
            .iter()
            .flat_map(|region| {
                let first = region.start_addr().0;
                (0..region.len()).step_by(PAGE as usize).filter_map(move |offset| {
                    region.bitmap().dirty_at(offset as usize).then_some((first + offset) / PAGE)
                })
            })
            .collect();
        prop_assert_eq!(marked, expected);
    }
}
