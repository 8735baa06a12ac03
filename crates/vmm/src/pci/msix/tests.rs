use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Remembers each line's message and how often it was signalled.
#[derive(Default)]
struct FakeRouter {
    lines: Arc<Mutex<BTreeMap<u32, (MsiMessage, u32)>>>,
    next: Mutex<u32>,
}

struct FakeLine {
    id: u32,
    lines: Arc<Mutex<BTreeMap<u32, (MsiMessage, u32)>>>,
}

impl MsiRouter for FakeRouter {
    fn connect(&self, message: MsiMessage) -> io::Result<Box<dyn MsiLine>> {
        let mut next = lock(&self.next);
        *next += 1;
        lock(&self.lines).insert(*next, (message, 0));
        Ok(Box::new(FakeLine {
            id: *next,
            lines: Arc::clone(&self.lines),
        }))
    }
}

impl MsiLine for FakeLine {
    fn set_message(&self, message: MsiMessage) -> io::Result<()> {
        lock(&self.lines).get_mut(&self.id).unwrap().0 = message;
        Ok(())
    }

    fn signal(&self) -> io::Result<()> {
        lock(&self.lines).get_mut(&self.id).unwrap().1 += 1;
        Ok(())
    }
}

impl Drop for FakeLine {
    fn drop(&mut self) {
        lock(&self.lines).remove(&self.id);
    }
}

const MESSAGE: MsiMessage = MsiMessage {
    address: 0xfee0_1000,
    data: 0x41,
};

fn program(msix: &Msix, vector: u64, message: MsiMessage, masked: bool) {
    let base = vector * ENTRY_SIZE;
    msix.table_write(base, &message.address.to_le_bytes());
    msix.table_write(base + 8, &message.data.to_le_bytes());
    msix.table_write(base + 12, &u32::from(masked).to_le_bytes());
}

fn signals(router: &FakeRouter) -> Vec<(MsiMessage, u32)> {
    lock(&router.lines).values().copied().collect()
}

fn pending(msix: &Msix) -> u64 {
    let mut bits = [0; 8];
    msix.pba_read(0, &mut bits);
    u64::from_le_bytes(bits)
}

#[test]
fn a_vector_is_connected_once_enabled_and_unmasked() {
    let router = Arc::new(FakeRouter::default());
    let msix = Msix::new(router.clone(), 3);
    program(&msix, 1, MESSAGE, false);
    assert!(signals(&router).is_empty());
    msix.vector(1).unwrap().signal().unwrap();
    assert_eq!(pending(&msix), 0, "dropped while MSI-X is disabled");
    msix.control_write(CONTROL_ENABLE);
    msix.vector(1).unwrap().signal().unwrap();
    assert_eq!(signals(&router), [(MESSAGE, 1)]);
    assert!(msix.vector(3).is_none());
    msix.reset();
    assert!(signals(&router).is_empty());
}

#[test]
fn masked_signals_are_pending_until_unmasked() {
    let router = Arc::new(FakeRouter::default());
    let msix = Msix::new(router.clone(), 2);
    msix.control_write(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    program(&msix, 0, MESSAGE, false);
    program(&msix, 1, MESSAGE, true);
    for n in 0..2 {
        msix.vector(n).unwrap().signal().unwrap();
        msix.vector(n).unwrap().signal().unwrap();
    }
    assert_eq!(pending(&msix), 0b11);
    msix.control_write(CONTROL_ENABLE);
    assert_eq!(pending(&msix), 0b10);
    assert_eq!(signals(&router), [(MESSAGE, 1)]);
    let moved = MsiMessage {
        data: 0x52,
        ..MESSAGE
    };
    program(&msix, 1, moved, false);
    assert_eq!(pending(&msix), 0);
    assert_eq!(signals(&router), [(MESSAGE, 1), (moved, 1)]);
}

#[test]
fn a_changed_message_moves_the_line() {
    let router = Arc::new(FakeRouter::default());
    let msix = Msix::new(router.clone(), 1);
    msix.control_write(CONTROL_ENABLE);
    program(&msix, 0, MESSAGE, false);
    let moved = MsiMessage {
        address: 0xfee0_2000,
        data: 0x42,
    };
    program(&msix, 0, moved, true);
    assert_eq!(signals(&router)[0].0.data, 0x42);
    program(&msix, 0, moved, false);
    assert_eq!(signals(&router), [(moved, 0)]);
}

#[test]
fn capability_says_size_and_places() {
    let msix = Msix::new(Arc::new(FakeRouter::default()), 5);
    assert_eq!(
        msix.capability(0, 0x2000, 2, 0x3000),
        [4, 0, 0, 0x20, 0, 0, 2, 0x30, 0, 0]
    );
    assert_eq!((msix.table_size(), msix.pba_size()), (80, 8));
}

proptest! {
    /// Any mix of guest writes and signals: what was written reads back, no signal is lost or doubled.
    #[test]
    fn registers_and_pending_bits_hold(steps in prop::collection::vec(
        (0_u8..4, any::<u16>(), any::<u64>()), 0..300)) {
        let router = Arc::new(FakeRouter::default());
        let msix = Msix::new(router.clone(), 4);
        for (what, at, value) in steps {
            match what {
                0 => msix.table_write(u64::from(at) % 80, &value.to_le_bytes()),
                1 => msix.table_write(u64::from(at) % 80, &(value as u32).to_le_bytes()),
                2 => msix.control_write(at),
                _ => {
                    let total = |router: &FakeRouter| signals(router).iter().map(|s| s.1).sum::<u32>();
                    let (n, before) = (at % 4, total(&router));
                    msix.vector(n).unwrap().signal().unwrap();
                    let was_pending = pending(&msix) >> n & 1 == 1;
                    let enabled = *lock(&msix.control) & CONTROL_ENABLE != 0;
                    prop_assert_eq!(enabled, was_pending || total(&router) == before + 1);
                }
            }
            for n in 0..4 {
                let mut control = [0; 4];
                msix.table_read(n * ENTRY_SIZE + 12, &mut control);
                let masked = control[0] == 1 || *lock(&msix.control) & CONTROL_FUNCTION_MASK != 0;
                prop_assert!(masked || pending(&msix) >> n & 1 == 0);
            }
        }
    }
}
