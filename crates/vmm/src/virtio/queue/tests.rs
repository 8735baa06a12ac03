use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use vm_memory::bitmap::Bitmap as _;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::super::GuestMemory;
use super::super::interrupt::Signals;
use super::*;

/// Two regions with a hole between them.
const LOW_END: u64 = 0x8000;
const HIGH_START: u64 = 0x1_0000;
const HIGH_END: u64 = 0x1_8000;
const BUFFERS: u64 = 0x4000;
const BUFFER_LEN: u32 = 64;

const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// `vring_need_event` of the specification (2.7.7.1): whether an index that went from `old` to `new` has passed `event`.
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Where a queue's areas are: each of the three in one of the two regions.
fn addresses() -> impl Strategy<Value = QueueAddresses> {
    let size = prop_oneof![Just(1), Just(2), Just(4), Just(8)];
    (size, any::<[bool; 3]>()).prop_map(|(size, high)| {
        let at = |nth: usize| 0x1000 * (1 + nth as u64) + if high[nth] { HIGH_START } else { 0 };
        QueueAddresses {
            size,
            descriptor_table: at(0),
            available_ring: at(1),
            used_ring: at(2),
        }
    })
}

/// The two sides of one queue.
struct Sides {
    addresses: QueueAddresses,
    event_idx: bool,
    ram: GuestMemory,
    signals: Arc<Signals>,
    queue: Virtqueue,
}

impl Sides {
    /// Both indexes begin at `start`.
    fn new(addresses: QueueAddresses, event_idx: bool, start: u16) -> Self {
        let region = |start, end| (GuestAddress(start), (end - start) as usize);
        let ram = GuestMemory::from_ranges(&[region(0, LOW_END), region(HIGH_START, HIGH_END)]).unwrap();
        let signals = Arc::default();
        let queue = Self::device(addresses, event_idx, &ram, &signals);
        let mut sides = Self {
            addresses,
            event_idx,
            ram,
            signals,
            queue,
        };
        sides.set(addresses.available_ring + 2, start);
        sides.set(addresses.used_ring + 2, start);
        sides.queue.go_on_from(Progress {
            next_available: start,
            next_used: start,
        });
        for head in 0..addresses.size {
            let buffer = BUFFERS + u64::from(BUFFER_LEN) * u64::from(head);
            let len_and_flags = u64::from(BUFFER_LEN) | u64::from(WRITE) << 32;
            let at = GuestAddress(addresses.descriptor_table + 16 * u64::from(head));
            sides.ram.write_obj([buffer, len_and_flags], at).unwrap();
        }
        sides
    }

    fn device(
        addresses: QueueAddresses,
        event_idx: bool,
        ram: &GuestMemory,
        signals: &Arc<Signals>,
    ) -> Virtqueue {
        let valid = addresses.validate(addresses.size, event_idx, ram).unwrap();
        let interrupt = QueueInterrupt::new(Arc::clone(signals), Arc::default());
        Virtqueue::new(0, valid, interrupt, EventFd::new(0).unwrap())
    }

    /// Another process goes on with the queue.
    fn replace_device(&mut self, progress: Progress) {
        self.queue = Self::device(self.addresses, self.event_idx, &self.ram, &self.signals);
        self.queue.go_on_from(progress);
    }

    fn get(&self, address: u64) -> u16 {
        self.ram.load(GuestAddress(address), Ordering::Acquire).unwrap()
    }

    fn set(&self, address: u64, value: u16) {
        self.ram
            .store(value, GuestAddress(address), Ordering::Release)
            .unwrap();
    }

    fn available_index(&self) -> u16 {
        self.get(self.addresses.available_ring + 2)
    }

    fn offer(&self, head: u16) {
        let index = self.available_index();
        let slot = u64::from(index % self.addresses.size);
        self.set(self.addresses.available_ring + 4 + 2 * slot, head);
        self.set(self.addresses.available_ring + 2, index.wrapping_add(1));
    }

    fn used_index(&self) -> u16 {
        self.get(self.addresses.used_ring + 2)
    }

    fn used_element(&self, position: u16) -> (u32, u32) {
        let at = self.addresses.used_ring + 4 + 8 * u64::from(position % self.addresses.size);
        let element: u64 = self.ram.read_obj(GuestAddress(at)).unwrap();
        (element as u32, (element >> 32) as u32)
    }

    fn set_used_event(&self, event: u16) {
        let at = self.addresses.available_ring + 4 + 2 * u64::from(self.addresses.size);
        self.set(at, event);
    }

    fn available_event(&self) -> u16 {
        self.get(self.addresses.used_ring + 4 + 8 * u64::from(self.addresses.size))
    }

    /// Whether the driver would ring the doorbell for `count` chains that it has added (2.7.10, 2.7.9).
    fn doorbell_is_wanted_for(&self, count: u16) -> bool {
        let index = self.available_index();
        if self.event_idx {
            return need_event(self.available_event(), index, index.wrapping_sub(count));
        }
        self.get(self.addresses.used_ring) & NO_NOTIFY == 0
    }

    fn was_interrupted(&self) -> bool {
        self.signals.take_isr() != 0
    }

    fn clear_marks(&self) {
        self.ram
            .iter()
            .for_each(|region| drop((**region).bitmap().take()));
    }

    fn is_marked(&self, address: u64) -> bool {
        let region = self.ram.find_region(GuestAddress(address)).unwrap();
        region
            .bitmap()
            .dirty_at((address - region.start_addr().0) as usize)
    }
}

/// What one of the sides does.
#[derive(Debug, Clone)]
enum Step {
    Offer(Index),
    Pop,
    Undo,
    Fill(Index, u32),
    Publish,
    Notify,
    EnableDoorbell,
    DisableDoorbell,
    /// The driver wants an interrupt for the used element that is so far from the next one.
    UsedEvent(i16),
    NoInterrupt(bool),
    /// The driver takes what is in the used ring.
    Take,
    /// The device is saved and goes on elsewhere.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<Index>().prop_map(Step::Offer),
        4 => Just(Step::Pop),
        1 => Just(Step::Undo),
        4 => (any::<Index>(), 0..2 * BUFFER_LEN).prop_map(|(which, written)| Step::Fill(which, written)),
        2 => Just(Step::Publish),
        2 => Just(Step::Notify),
        1 => Just(Step::EnableDoorbell),
        1 => Just(Step::DisableDoorbell),
        2 => (-4..4_i16).prop_map(Step::UsedEvent),
        1 => any::<bool>().prop_map(Step::NoInterrupt),
        2 => Just(Step::Take),
        1 => Just(Step::Restore),
    ]
}

/// What a queue is by the specification's words: lists of chains.
struct Model {
    /// Chains that the driver has.
    free: Vec<u16>,
    available: VecDeque<u16>,
    /// Chains that the device has.
    held: Vec<u16>,
    /// The last chains that were popped, of which none has been filled.
    undoable: Vec<u16>,
    /// Used elements that the driver does not see.
    filled: Vec<(u16, u32)>,
    /// Those that it sees and has not taken.
    used: VecDeque<(u16, u32)>,
    next_available: u16,
    used_index: u16,
    /// The used index at the last notification.
    notified: u16,
    used_event: u16,
    no_interrupt: bool,
}

impl Model {
    fn new(size: u16, start: u16) -> Self {
        Self {
            free: (0..size).collect(),
            available: VecDeque::new(),
            held: Vec::new(),
            undoable: Vec::new(),
            filled: Vec::new(),
            used: VecDeque::new(),
            next_available: start,
            used_index: start,
            notified: start,
            used_event: 0,
            no_interrupt: false,
        }
    }

    fn publish(&mut self) {
        self.used_index = self.used_index.wrapping_add(self.filled.len() as u16);
        self.used.extend(self.filled.drain(..));
    }

    /// Whether the driver is to be interrupted now (2.7.7).
    fn notify(&mut self, event_idx: bool) -> bool {
        self.publish();
        let (new, old) = (
            self.used_index,
            std::mem::replace(&mut self.notified, self.used_index),
        );
        match event_idx {
            true => need_event(self.used_event, new, old),
            false => new != old && !self.no_interrupt,
        }
    }
}

fn run(sides: &mut Sides, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let mut chain = Chain::default();
    match step {
        Step::Offer(which) if !model.free.is_empty() => {
            let head = model.free.swap_remove(which.index(model.free.len()));
            sides.offer(head);
            model.available.push_back(head);
        }
        Step::Pop => {
            let found = sides.queue.pop(&mut chain, 1).unwrap();
            let expected = model.available.pop_front();
            prop_assert_eq!(found.then_some(chain.head), expected);
            if let Some(head) = expected {
                model.next_available = model.next_available.wrapping_add(1);
                model.held.push(head);
                model.undoable.push(head);
            }
        }
        Step::Undo => {
            if let Some(head) = model.undoable.pop() {
                sides.queue.undo_pop();
                model.next_available = model.next_available.wrapping_sub(1);
                model.held.retain(|&held| held != head);
                model.available.push_front(head);
            }
        }
        Step::Fill(which, written) if !model.held.is_empty() => {
            chain.head = model.held.swap_remove(which.index(model.held.len()));
            model.undoable.clear();
            model.filled.push((chain.head, written));
            sides.queue.fill(&chain, written).unwrap();
        }
        Step::Publish => {
            sides.queue.publish().unwrap();
            model.publish();
        }
        Step::Notify => {
            sides.queue.notify().unwrap();
            prop_assert_eq!(sides.was_interrupted(), model.notify(sides.event_idx));
        }
        Step::EnableDoorbell => {
            let more = sides.queue.enable_doorbell().unwrap();
            prop_assert_eq!(more, !model.available.is_empty());
            if let (false, Some(&head)) = (more, model.free.last()) {
                model.free.pop();
                sides.offer(head);
                model.available.push_back(head);
                prop_assert!(sides.doorbell_is_wanted_for(1));
            }
        }
        Step::DisableDoorbell => {
            sides.queue.disable_doorbell().unwrap();
            for count in 1..=model.available.len() as u16 {
                prop_assert!(!sides.doorbell_is_wanted_for(count));
            }
        }
        Step::UsedEvent(ahead) => {
            model.used_event = model.used_index.wrapping_add_signed(ahead);
            sides.set_used_event(model.used_event);
        }
        Step::NoInterrupt(no) => {
            model.no_interrupt = no;
            let flags = if no { NO_INTERRUPT } else { 0 };
            sides.set(sides.addresses.available_ring, flags);
        }
        Step::Take => model.free.extend(model.used.drain(..).map(|(head, _)| head)),
        // A device is saved when its workers have ended, which publish and notify before that.
        Step::Restore if model.filled.is_empty() && model.notified == model.used_index => {
            sides.replace_device(sides.queue.progress());
        }
        Step::Offer(_) | Step::Fill(..) | Step::Restore => {}
    }
    prop_assert_eq!(sides.queue.has_available().unwrap(), !model.available.is_empty());
    prop_assert_eq!(sides.used_index(), model.used_index);
    let shown = Progress {
        next_available: model.next_available,
        next_used: model.used_index,
    };
    prop_assert_eq!(sides.queue.progress(), shown);
    for (behind, &(head, written)) in (1..).zip(model.used.iter().rev()) {
        let element = sides.used_element(model.used_index.wrapping_sub(behind));
        prop_assert_eq!(element, (u32::from(head), written));
    }
    prop_assert!(!sides.was_interrupted(), "only a notification interrupts");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever both sides do, in whatever order, also where the indexes wrap around.
    #[test]
    fn a_queue_is_what_the_specification_says(
        addresses in addresses(),
        event_idx: bool,
        start in prop_oneof![Just(0), u16::MAX - 20..=u16::MAX, any::<u16>()],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut sides = Sides::new(addresses, event_idx, start);
        let mut model = Model::new(addresses.size, start);
        for step in steps {
            run(&mut sides, &mut model, step)?;
        }
    }

    /// For each distance between the indexes, and not only for those that a ring's size allows.
    #[test]
    fn an_interrupt_is_due_when_the_used_index_passes_the_event(
        start: u16,
        event in -300..300_i16,
        batches in prop::collection::vec(0..4_usize, 1..100),
    ) {
        let addresses = QueueAddresses { size: 4, descriptor_table: 0x1000, available_ring: 0x2000, used_ring: 0x3000 };
        let mut sides = Sides::new(addresses, true, start);
        let event = start.wrapping_add_signed(event);
        sides.set_used_event(event);
        let mut old = start;
        for batch in batches {
            for _ in 0..batch {
                sides.queue.complete(&Chain::default(), 0).unwrap();
            }
            let new = old.wrapping_add(batch as u16);
            sides.queue.notify().unwrap();
            prop_assert_eq!(sides.was_interrupted(), need_event(event, new, old));
            old = new;
        }
    }

    /// Too many chains are refused wherever the indexes are, and a ring full of them is not.
    #[test]
    fn an_available_index_that_is_too_far_ahead_is_refused(
        addresses in addresses(),
        start: u16,
        ahead in prop_oneof![0..20_u16, any::<u16>()],
    ) {
        let mut sides = Sides::new(addresses, false, start);
        sides.set(addresses.available_ring + 2, start.wrapping_add(ahead));
        let popped = sides.queue.pop(&mut Chain::default(), 1);
        if ahead > addresses.size {
            let refused = matches!(popped, Err(QueueError::Ring { index: 0, .. }));
            prop_assert!(refused);
        } else {
            prop_assert_eq!(popped.unwrap(), ahead > 0);
        }
    }

    #[test]
    fn a_queue_that_nobody_served_goes_on_where_the_used_ring_ends(addresses in addresses(), index: u16) {
        let sides = Sides::new(addresses, false, 0);
        sides.set(addresses.used_ring + 2, index);
        let queue = sides.queue.go_on_as_used().unwrap();
        prop_assert_eq!(queue.progress(), Progress { next_available: index, next_used: index });
    }

    /// A diff snapshot must have the used ring, its event field included, and nothing that only the driver writes.
    #[test]
    fn what_the_device_writes_into_its_rings_is_marked(addresses in addresses(), event_idx: bool) {
        let mut sides = Sides::new(addresses, event_idx, 7);
        sides.clear_marks();
        sides.queue.enable_doorbell().unwrap();
        prop_assert!(sides.is_marked(addresses.used_ring));
        sides.clear_marks();
        sides.queue.complete(&Chain::default(), 0).unwrap();
        sides.queue.notify().unwrap();
        prop_assert!(sides.is_marked(addresses.used_ring));
        prop_assert!(!sides.is_marked(addresses.available_ring));
        prop_assert!(!sides.is_marked(addresses.descriptor_table));
    }
}

/// A used ring that goes over the end of a page: an element of it, the index and the event field are marked each.
#[test]
fn each_page_of_a_used_ring_is_marked_when_it_is_written() {
    let addresses = QueueAddresses {
        size: 8,
        descriptor_table: 0x1000,
        available_ring: 0x2000,
        // Its index is in the first page, its elements and the event field are in the second.
        used_ring: 0x4000 - 4,
    };
    let mut sides = Sides::new(addresses, true, 0);
    let take = |sides: &Sides| {
        let region = sides.ram.find_region(GuestAddress(0)).unwrap();
        (**region).bitmap().take()[0]
    };
    sides.clear_marks();
    sides.queue.fill(&Chain::default(), 0).unwrap();
    assert_eq!(take(&sides), 1 << 4, "the element alone: the index is withheld");
    sides.queue.publish().unwrap();
    assert_eq!(take(&sides), 1 << 3);
    sides.queue.disable_doorbell().unwrap();
    assert_eq!(take(&sides), 1 << 4);
}

#[test]
fn slices_of_a_queue_are_of_ram_or_refused() {
    let sides = Sides::new(
        QueueAddresses {
            size: 8,
            descriptor_table: 0x1000,
            available_ring: 0x2000,
            used_ring: HIGH_START,
        },
        false,
        0,
    );
    let memory = &sides.queue.memory;
    for (address, len, is_ram) in [
        (0, LOW_END, true),
        (0, LOW_END + 1, false),
        (LOW_END - 1, 1, true),
        (LOW_END - 1, 2, false),
        (LOW_END, 1, false),
        (HIGH_START - 1, 1, false),
        (HIGH_START, HIGH_END - HIGH_START, true),
        (HIGH_START, HIGH_END - HIGH_START + 1, false),
        (HIGH_END - 1, 2, false),
        (HIGH_END, 1, false),
        (u64::MAX, 1, false),
        (u64::MAX, u64::MAX, false),
        (HIGH_START + 8, u64::MAX, false),
    ] {
        let slice = memory.slice(GuestAddress(address), len as usize);
        assert_eq!(slice.is_ok(), is_ram, "{len:#x} bytes at {address:#x}");
        if let Ok(slice) = slice {
            let expected = sides.ram.get_host_address(GuestAddress(address)).unwrap();
            assert_eq!(slice.ptr_guard_mut().as_ptr(), expected);
            assert_eq!(slice.len() as u64, len);
        }
    }
}
