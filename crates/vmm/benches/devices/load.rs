//! A driver that keeps so many requests at a device, and looks for their ends all the time.

use std::hint;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use criterion::{Criterion, Throughput};
use hearth_vmm::pci::PciFunction as _;
use hearth_vmm::virtio::VirtioDevice;
use hearth_vmm::virtio::testing::{Driver, NEEDS_RESET, Ring};
use vmm_sys_util::eventfd::EventFd;

use crate::cost::{Cost, Meters};

/// Entries, where the device allows so many.
const RING: u16 = 256;
/// Looks in vain between two looks at the device's status.
const LOOKS: u32 = 1 << 20;

/// How a device is driven.
pub struct Load<'a> {
    pub name: &'a str,
    /// Of the device's features, those that the driver takes.
    pub features: u64,
    pub queue: usize,
    /// Requests at the device.
    pub depth: u16,
    /// Buffers that wait at the device besides, for what comes.
    pub spare: u16,
    /// Bytes that a request moves.
    pub bytes: u64,
}

/// What the requests are. Each has a slot.
pub trait Traffic {
    /// Descriptors of a request.
    const CHAIN: u16;

    /// Writes a slot's request.
    fn write(&self, ring: &Ring, slot: u16, driver: &Driver);

    /// A request is about to be offered again.
    fn begin(&mut self, slot: u16, driver: &Driver) {
        let _ = (slot, driver);
    }

    /// The device has given it back.
    fn end(&mut self, slot: u16, driver: &Driver) {
        let _ = (slot, driver);
    }
}

/// Reports wall time to criterion, and what the device's side has spent on all of its samples at the end.
pub fn measure<T: Traffic>(
    c: &mut Criterion,
    load: &Load<'_>,
    device: impl VirtioDevice + 'static,
    traffic: &mut T,
) {
    // Before the device's threads are started.
    let mut meters = Meters::new();
    let ring = device.queue_sizes()[load.queue].min(RING);
    let mut driver = Driver::probe(device);
    driver.initialise(load.features, ring);
    let mut polling = Polling::new(&driver, load, traffic);
    let (mut requests, mut spent) = (0, Cost::default());
    let mut group = c.benchmark_group("devices");
    group.throughput(if load.bytes >= 1 << 20 {
        Throughput::Bytes(load.bytes)
    } else {
        Throughput::Elements(1)
    });
    group.bench_function(load.name, |b| {
        b.iter_custom(|now| {
            let (begun, before) = (Instant::now(), meters.read());
            polling.run(now, traffic);
            let took = begun.elapsed();
            spent.add(meters.read().since(before));
            requests += now;
            took
        });
    });
    group.finish();
    if requests == 0 {
        // It was not asked for.
        return;
    }
    let each = |total: f64| total / requests as f64;
    println!(
        "{}: for each {:.2} µs of the device's processor time, {} system calls, {:.3} doorbells\n",
        load.name,
        each(spent.cpu.as_secs_f64() * 1e6),
        spent.system_calls.map_or("uncounted".to_owned(), |calls| format!(
            "{:.3}",
            each(calls as f64)
        )),
        each(polling.rings as f64)
    );
}

struct Polling<'a> {
    driver: &'a Driver,
    ring: &'a Ring,
    doorbell: EventFd,
    /// Heads of what is not at the device.
    free: Vec<u16>,
    /// The used index of the next answer.
    next: u16,
    /// Of the doorbell: in a machine, each is an exit of the vCPU.
    rings: u64,
}

impl<'a> Polling<'a> {
    fn new<T: Traffic>(driver: &'a Driver, load: &Load<'_>, traffic: &T) -> Self {
        let ring = driver.ring(load.queue);
        let heads = |slots: std::ops::Range<u16>| slots.map(|slot| slot * T::CHAIN);
        for slot in 0..load.depth + load.spare {
            traffic.write(ring, slot, driver);
        }
        let mut polling = Self {
            driver,
            ring,
            doorbell: driver.function.doorbells().swap_remove(load.queue).event,
            free: heads(0..load.depth).collect(),
            next: 0,
            rings: 0,
        };
        let before = polling.available();
        for head in heads(load.depth..load.depth + load.spare) {
            ring.offer(head);
        }
        polling.ring_if_wanted(before);
        polling
    }

    fn run<T: Traffic>(&mut self, requests: u64, traffic: &mut T) {
        let (mut begun, mut ended) = (0, 0);
        while ended < requests {
            let before = self.available();
            while begun < requests
                && let Some(head) = self.free.pop()
            {
                traffic.begin(head / T::CHAIN, self.driver);
                self.ring.offer(head);
                begun += 1;
            }
            self.ring_if_wanted(before);
            self.wait();
            while self.ring.used_index() != self.next {
                let head = self.ring.used_element(self.next).0 as u16;
                self.next = self.next.wrapping_add(1);
                traffic.end(head / T::CHAIN, self.driver);
                self.free.push(head);
                ended += 1;
            }
            // No interrupt is wanted.
            self.ring.set_used_event(self.next.wrapping_sub(1));
        }
    }

    fn wait(&self) {
        loop {
            for _ in 0..LOOKS {
                if self.ring.used_index() != self.next {
                    return;
                }
                hint::spin_loop();
            }
            assert_eq!(self.driver.status() & NEEDS_RESET, 0, "the device is broken");
        }
    }

    fn available(&self) -> u16 {
        self.ring.u16(self.ring.available + 2)
    }

    /// As `VIRTIO_F_EVENT_IDX` has it (2.7.10).
    fn ring_if_wanted(&mut self, before: u16) {
        fence(Ordering::SeqCst);
        let event = self.ring.u16(self.ring.used + 4 + 8 * u64::from(self.ring.size));
        let now = self.available();
        if now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before) {
            self.doorbell.write(1).unwrap();
            self.rings += 1;
        }
    }
}
