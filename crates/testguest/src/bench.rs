//! Measurements: the same guest under each monitor, with nothing of an operating system in between.
//!
//! `bench=random_read,sequential_write depth=1,32 operations=20000 length=4096 wait=poll` prints a line for each
//! combination. What writes take includes a flush after the last one. `wait=interrupt` sleeps between completions; `poll` looks all the time and asks for no interrupts.
//! It says so when the measurement begins and ends. With `then=wait` the machine stays on for whoever looks at its monitor.
//! Ticks are the processor's time stamp counter, whose rate the host knows. `bench=packets` sends that many packets of
//! `length` bytes through the first NIC: [`packets`]. `bench=net` is another matter: [`net`].

mod net;
mod packets;
mod tcp;

use crate::memory::allocate;
use crate::report::{End, Outcome};
use crate::virtio::block::{FLUSH, HEADER_LEN, IN, OK, OUT, SECTOR, write_header};
use crate::virtio::ring::{Ring, into, out};
use crate::virtio::{self, PATIENCE};
use crate::{Machine, cpu, ensure, memory, println};

const DEFAULT_OPERATIONS: u64 = 20_000;
const DEFAULT_LENGTH: u64 = 4096;
/// Hundredths of a second in which the host reads what the guest has said, and looks at the monitor.
const HOST_LOOKS: u64 = 5;
/// Header, data, status.
const CHAIN: u16 = 3;
/// Room for header and status.
const REQUEST_LEN: u64 = 64;
const STATUS_AT: u64 = 32;

struct Plan {
    kind: u32,
    random: bool,
    depth: u16,
    operations: u64,
    length: u64,
    sleep: bool,
}

pub fn run(machine: &Machine, names: &'static str) {
    if names == "net" {
        match net::serve(machine) {
            Ok(()) => {}
            Err(End::Failed(why)) => println!("bench net FAILED: {why}"),
            Err(End::Absent(what)) => println!("bench net absent: {what}"),
        }
        return;
    }
    let option = |name| machine.boot.option(name);
    let number = |name, default| option(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    for name in names.split(',') {
        for depth in option("depth=").unwrap_or("1,32").split(',') {
            let plan = Plan {
                kind: if name.ends_with("write") { OUT } else { IN },
                random: name.starts_with("random"),
                depth: depth.parse().unwrap_or(1),
                operations: number("operations=", DEFAULT_OPERATIONS),
                length: number("length=", DEFAULT_LENGTH),
                sleep: option("wait=") == Some("interrupt"),
            };
            memory::free_all();
            let measured = match name {
                "packets" => packets::measure(machine, plan.operations, plan.length),
                _ => measure(machine, name, &plan),
            };
            match measured {
                Ok(ticks) => println!(
                    "bench {name} depth {depth} length {}: {} operations in {ticks} ticks",
                    plan.length, plan.operations
                ),
                Err(End::Failed(why)) => println!("bench {name} depth {depth} FAILED: {why}"),
                Err(End::Absent(what)) => println!("bench {name} depth {depth} absent: {what}"),
            }
        }
    }
    while option("then=") == Some("wait") {
        cpu::sleep(100);
    }
}

/// The ticks that the operations take.
fn measure(machine: &Machine, name: &str, plan: &Plan) -> Outcome<u64> {
    let Some(device) = machine.device(virtio::BLOCK, 0) else {
        return Err(End::Absent("no block device"));
    };
    let sectors: u64 = device.config(0);
    let places = sectors * SECTOR / plan.length;
    ensure!(places > 0, "the disk is smaller than a request");
    let [ring] = device.start(u64::MAX, 256)?;
    ensure!(
        plan.depth > 0 && CHAIN * plan.depth <= ring.size,
        "no ring for this depth"
    );
    let mut load = Load {
        ring,
        requests: allocate(REQUEST_LEN * u64::from(plan.depth)),
        data: allocate(plan.length * u64::from(plan.depth)),
        places: Places {
            places,
            random: plan.random,
            state: 0x9e37_79b9_7f4a_7c15,
        },
        plan,
    };
    // Not measured: the first round, in which the host's threads wake up.
    load.run(u64::from(plan.depth))?;
    println!("begin {name} depth {}", plan.depth);
    cpu::sleep(HOST_LOOKS);
    let start = cpu::ticks();
    load.run(plan.operations)?;
    if plan.kind == OUT {
        load.flush()?;
    }
    let ticks = cpu::ticks() - start;
    println!("end {name} depth {}", plan.depth);
    cpu::sleep(HOST_LOOKS);
    device.reset()?;
    Ok(ticks)
}

struct Load<'a> {
    ring: Ring,
    requests: u64,
    data: u64,
    places: Places,
    plan: &'a Plan,
}

impl Load<'_> {
    fn run(&mut self, operations: u64) -> Outcome {
        let depth = u64::from(self.plan.depth).min(operations);
        let before = self.ring.available_index();
        for slot in 0..depth as u16 {
            self.offer(slot);
        }
        self.ring.kick_if_wanted(before);
        let (mut offered, mut done) = (depth, 0);
        while done < operations {
            self.wait()?;
            let before = self.ring.available_index();
            while let Some((head, _)) = self.ring.take() {
                let slot = head as u16 / CHAIN;
                let status: u8 = cpu::read(self.request(slot) + STATUS_AT);
                ensure!(status == OK, "operation {done} has status {status}");
                done += 1;
                if offered < operations {
                    self.offer(slot);
                    offered += 1;
                }
            }
            if self.ring.available_index() != before {
                self.ring.kick_if_wanted(before);
            }
        }
        Ok(())
    }

    /// Makes what was written durable.
    fn flush(&mut self) -> Outcome {
        let (request, before) = (self.request(0), self.ring.available_index());
        write_header(request, FLUSH, 0);
        self.ring
            .chain(0, &[out(request, HEADER_LEN), into(request + STATUS_AT, 1)]);
        self.ring.offer(0);
        self.ring.kick_if_wanted(before);
        self.wait()?;
        self.ring.take();
        let status: u8 = cpu::read(request + STATUS_AT);
        ensure!(status == OK, "the flush has status {status}");
        Ok(())
    }

    fn wait(&self) -> Outcome {
        if self.plan.sleep {
            let came = cpu::wait_for(PATIENCE, || self.ring.is_used());
            ensure!(came, "no completion");
        } else {
            self.ring.want_no_interrupt();
            while !self.ring.is_used() {
                core::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn request(&self, slot: u16) -> u64 {
        self.requests + REQUEST_LEN * u64::from(slot)
    }

    fn offer(&mut self, slot: u16) {
        let (request, length) = (self.request(slot), self.plan.length);
        let data = self.data + length * u64::from(slot);
        write_header(request, self.plan.kind, self.places.next() * length / SECTOR);
        let buffer = if self.plan.kind == IN { into } else { out };
        self.ring.chain(
            CHAIN * slot,
            &[
                out(request, HEADER_LEN),
                buffer(data, length as u32),
                into(request + STATUS_AT, 1),
            ],
        );
        self.ring.offer(CHAIN * slot);
    }
}

/// Where on the disk the next operation goes, in units of its length.
struct Places {
    places: u64,
    random: bool,
    state: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        if self.random {
            // xorshift64
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
        } else {
            self.state = self.state.wrapping_add(1);
        }
        self.state % self.places
    }
}
