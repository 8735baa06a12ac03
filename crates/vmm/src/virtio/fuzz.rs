//! A hostile driver: the input says what it writes, into rings and registers, and when it rings the doorbell.
//!
//! Whatever it has done, after a reset the device can be driven again, and says nothing of a reset that it needs.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_block::RawDisk;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, GuestAddress};

use super::VirtioDevice;
use super::balloon::{Balloon, BalloonOptions, Handle};
use super::block::Block;
use super::net::{Net, NetConfig};
use super::rng::Rng;
use super::testing::{DATA, Driver, HIGH_END, HIGH_START, LOW_END, NEEDS_RESET};
use super::vsock::Vsock;
use crate::fuzz::Input;
use crate::notices::Notices;
use crate::pci::PciFunction as _;
use crate::snapshot::Saved;

/// Of one input: more only take longer.
const STEPS: usize = 100;
/// A device that was rung has that long before the driver goes on.
const PATIENCE: Duration = Duration::from_millis(2);
const RING_SIZE: u16 = 16;

pub(crate) fn block(input: &[u8]) {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 64 << 10).unwrap();
    let disk = RawDisk::new(File::from(file)).unwrap();
    drive(Block::new(Arc::new(disk), "vol0123456789abcdef0", false), input);
}

pub(crate) fn net(input: &[u8]) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    let (tap, wire): (OwnedFd, OwnedFd) = pair.unwrap();
    // Something to receive.
    for len in [20, 60, 1514] {
        rustix::io::write(&wire, &vec![0x5a; len]).unwrap();
    }
    let config = NetConfig {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    };
    drive(Net::on_socket(File::from(tap), config), input);
}

pub(crate) fn rng(input: &[u8]) {
    drive(Rng::new(), input);
}

pub(crate) fn balloon(input: &[u8]) {
    let options = BalloonOptions {
        target_mib: 1,
        deflate_on_oom: true,
        free_page_reporting: true,
    };
    let handle = Handle::new(options, 4).unwrap();
    drive(Balloon::new(handle, Arc::new(Notices::new().unwrap())), input);
}

/// Of the host, one program listens on port 5, and another asks for the guest's port 5.
pub(crate) fn vsock(input: &[u8]) {
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let guest = std::env::temp_dir().join(format!("hearth-fuzz-{thread}"));
    let host = guest.with_file_name(format!("hearth-fuzz-{thread}_5"));
    let sockets = [&guest, &host].map(|path| {
        // Of a process that was killed.
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path).unwrap()
    });
    let mut asking = UnixStream::connect(&guest).unwrap();
    asking.write_all(b"CONNECT 5\nhello").unwrap();
    let [guest_socket, _host_socket] = sockets;
    drive(Vsock::new(77, guest_socket, guest.clone()).unwrap(), input);
    for path in [guest, host] {
        std::fs::remove_file(path).unwrap();
    }
}

/// The first byte takes features away.
fn drive(device: impl VirtioDevice + 'static, input: &[u8]) {
    let mut input = Input(input);
    let features = !(u64::from(input.byte()) << 24);
    let mut driver = Driver::probe(device);
    driver.initialise(features, RING_SIZE);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut driver, &mut input);
    }
    driver.initialise(features, RING_SIZE);
    assert_eq!(driver.status() & NEEDS_RESET, 0);
    driver.set_status(0);
}

fn step(driver: &mut Driver, input: &mut Input<'_>) {
    let what = input.byte();
    let queue = usize::from(input.byte()) % driver.rings.len();
    match what % 8 {
        0 => {
            let (table, index) = (DATA, input.byte());
            let (address, len, flags) = (address(driver, input), len(input), input.byte());
            let next = input.byte();
            let ring = driver.ring(queue);
            ring.table_entry(table, index.into(), address, len, flags.into(), next.into());
        }
        1 => {
            let (index, address) = (u16::from(input.byte()) % RING_SIZE, address(driver, input));
            let (len, flags, next) = (len(input), input.byte(), input.byte());
            let ring = driver.ring(queue);
            ring.descriptor(index, address, len, flags.into(), next.into());
        }
        2 => driver.ring(queue).offer(input.byte().into()),
        3 => {
            driver.ring(queue).kick(driver);
            settle(driver);
        }
        4 => {
            let (at, len) = (address(driver, input), input.byte());
            let bytes = input.bytes(len.into());
            // Outside of memory there is nothing to write.
            let _ = driver.memory.write_slice(bytes, GuestAddress(at));
        }
        5 => {
            let (offset, len) = (input.byte(), width(input));
            driver.common_write(offset.into(), input.bytes(len));
        }
        6 => {
            let (offset, len) = (input.byte(), width(input));
            let at = driver.capabilities.structures[&4].0 + u64::from(offset);
            driver.function.bar_write(0, at, input.bytes(len));
            driver.function.bar_read(0, at, &mut [0; 8][..len]);
        }
        _ => driver.initialise(!(u64::from(input.byte()) << 24), RING_SIZE),
    }
}

/// Places worth a visit, and a little beyond.
fn address(driver: &Driver, input: &mut Input<'_>) -> u64 {
    let place = input.byte();
    let by = input.number(2);
    let ring = &driver.rings[usize::from(place >> 4) % driver.rings.len()];
    match place % 8 {
        0 => ring.descriptors + by,
        1 => ring.available + by,
        2 => ring.used + by,
        3 => LOW_END - by,
        4 => HIGH_START + by,
        5 => HIGH_END - by,
        6 => input.number(8),
        _ => DATA + by,
    }
}

fn len(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        0 => input.number(4) as u32,
        1 => input.number(2) as u32,
        len => u32::from(len) * 2,
    }
}

fn width(input: &mut Input<'_>) -> usize {
    [1, 2, 4, 8][usize::from(input.byte()) % 4]
}

/// Lets the workers have what was offered; a broken ring may keep them from ever using it.
fn settle(driver: &Driver) {
    let deadline = Instant::now() + PATIENCE;
    let is_done = || {
        driver.status() & NEEDS_RESET != 0
            || (driver.rings.iter()).all(|ring| ring.used_index() == ring.u16(ring.available + 2))
    };
    while !is_done() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// Configuration space and BAR, by accesses of any width at any place.
pub(crate) fn registers(input: &[u8]) {
    let mut input = Input(input);
    let driver = Driver::probe(Rng::new());
    for _ in 0..10 * STEPS {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        let (offset, len) = (input.number(2), usize::from(what >> 4) % 9);
        let bytes = &mut [0; 8][..len];
        match what % 4 {
            0 => drop(
                driver
                    .function
                    .config_write((offset % 4096) as u16, input.bytes(len)),
            ),
            1 => driver.function.config_read((offset % 4096) as u16, bytes),
            2 => driver.function.bar_write(what >> 2 & 1, offset, input.bytes(len)),
            _ => driver.function.bar_read(what >> 2 & 1, offset, bytes),
        }
    }
    driver.function.reset();
    assert_eq!(driver.function.bars().len(), 0, "a reset leaves a BAR decoded");
}

/// A saved state that a stranger wrote: refused, or the function goes on with it.
pub(crate) fn state(input: &[u8]) {
    let driver = Driver::probe(Rng::new());
    driver.function.pause();
    let restored = driver.function.restore(&Saved::from(input.to_vec()));
    if restored.is_ok() {
        let saved = driver.function.save().unwrap();
        driver.function.resume();
        driver.function.pause();
        driver.function.restore(&saved).unwrap();
        driver.function.resume();
    }
    driver.function.reset();
}
