//! How fast packets move between guest memory and a TAP, and what a worker's thread pays for each. Run it with
//!
//! ```text
//! cargo test -p hearth-vmm --lib --config 'profile.test.package.hearth-vmm.opt-level=3' \
//!     virtio::net::tests::real_tap::throughput -- --ignored --nocapture
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

const TAP: &str = "hearth-t5";
const TIME: Duration = Duration::from_secs(2);
const RING: u16 = 256;
const BUFFER: u32 = 1536;

/// Nanoseconds of CPU that the thread of this name has used; a new one may not have its name yet.
fn cpu(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let paths = tasks.map(|task| task.unwrap().path());
    let mut of_name = paths
        .filter(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == thread));
    of_name.next().map_or(0, |path| {
        let stat = std::fs::read_to_string(path.join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse().unwrap()
    })
}

fn report(what: &str, bytes: u64, packets: u64, time: Duration, cpu: u64) {
    let seconds = time.as_secs_f64();
    eprintln!(
        "{what}: {:.2} Gbit/s, {:.0} packets/s, {} ns of CPU a packet, {:.2} ns a byte",
        bytes as f64 * 8e-9 / seconds,
        packets as f64 / seconds,
        cpu / packets.max(1),
        cpu as f64 / bytes.max(1) as f64,
    );
}

/// Frames that the kernel drops at once, because they are for another host.
fn send_for_a_while(driver: &Driver, what: &str, header: Header, len: usize) {
    let packet = [header.as_bytes(), &udp_packet([2; 6], &frame(len - 42, 1))].concat();
    driver
        .memory
        .write_slice(&packet, GuestAddress(HIGH_START))
        .unwrap();
    let ring = driver.ring(TX);
    let half = RING / 2;
    (0..RING).for_each(|head| ring.chain(head, &[(HIGH_START, packet.len() as u32, false)]));
    let (begin, cpu_before) = (Instant::now(), cpu("net-pair0"));
    let mut offered = ring.used_index();
    let mut packets = 0_u64;
    while begin.elapsed() < TIME {
        for _ in 0..half {
            ring.offer(offered % RING);
            offered = offered.wrapping_add(1);
        }
        ring.kick(driver);
        // One half is sent while the other is offered.
        let behind = |limit| offered.wrapping_sub(ring.used_index()) <= limit;
        driver.interrupts.wait_until("half a ring", || behind(half));
        packets += u64::from(half);
    }
    report(
        what,
        packets * len as u64,
        packets,
        begin.elapsed(),
        cpu("net-pair0") - cpu_before,
    );
    driver
        .interrupts
        .wait_until("the rest", || ring.used_index() == offered);
}

/// A program of the host sends as fast as it can.
fn receive_for_a_while(driver: &Driver, what: &str, payload: usize, segment: i32) {
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    setsockopt(&socket, sockopt::UdpGsoSegment, &segment).unwrap();
    let ring = driver.ring(RX);
    let post = |head: u16| {
        ring.chain(
            head,
            &[(HIGH_START + u64::from(head) * u64::from(BUFFER), BUFFER, true)],
        );
        ring.offer(head);
    };
    (0..RING).for_each(post);
    ring.kick(driver);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = frame(payload, 1);
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(&data, "10.0.0.2:7000");
            }
        });
        let (begin, cpu_before) = (Instant::now(), cpu("net-pair0"));
        let (mut seen, mut bytes, mut packets) = (0_u16, 0_u64, 0_u64);
        while begin.elapsed() < TIME {
            driver
                .interrupts
                .wait_until("packets", || ring.used_index() != seen);
            let mut left = 0;
            while seen != ring.used_index() || left > 0 {
                let (head, len) = ring.used_element(seen);
                if left == 0 {
                    let address = HIGH_START + u64::from(head) * u64::from(BUFFER);
                    left = driver.memory.read_obj::<u16>(GuestAddress(address + 10)).unwrap();
                    packets += 1;
                }
                left -= 1;
                bytes += u64::from(len);
                post(head as u16);
                seen = seen.wrapping_add(1);
            }
            ring.kick(driver);
        }
        report(
            what,
            bytes,
            packets,
            begin.elapsed(),
            cpu("net-pair0") - cpu_before,
        );
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
#[ignore = "a measurement: takes seconds and an idle machine"]
fn throughput() {
    if !enter_namespace("throughput") {
        return;
    }
    let mut driver = Driver::probe(Net::new(vec![open_tap(TAP)], CONFIG).unwrap());
    driver.initialise(PLAIN, RING);
    set_up(TAP);
    send_for_a_while(&driver, "to the TAP, 1514 bytes", Header::default(), 1514);
    send_for_a_while(&driver, "to the TAP, 60 bytes", Header::default(), 60);
    receive_for_a_while(&driver, "from the TAP, 1514 bytes", 1472, 0);
    driver.initialise(PLAIN | CSUM | SEGMENTATION | MERGEABLE, RING);
    send_for_a_while(&driver, "to the TAP, 63 KiB unsegmented", offloaded(1448), 64_000);
    receive_for_a_while(&driver, "from the TAP, 63 KiB unsegmented", 63_712, 1448);
    driver.initialise(PLAIN | CSUM | SEGMENTATION | MERGEABLE, RING);
    receive_for_a_while(
        &driver,
        "from the TAP, 1514 bytes into mergeable buffers",
        1472,
        0,
    );
}
