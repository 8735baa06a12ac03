//! A monitor is small, and does not grow while devices come and go over and over. The guest sleeps and knows nothing of
//! them, so each is taken out by force.
//!
//! `HEARTH_CHURN` says how many times; 1,000 without it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "boot/guest.rs"]
mod guest;
#[path = "guest/tap.rs"]
mod tap;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use guest::{Guest, files};
use hearth_block::overlay;
use hearth_vmm::control::{Event, FreezeSpec, Reply, Request};
use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::{BootSpec, Cache, DiskBacking, DiskSpec, HugePages, NicSpec};

/// `cli; 1: hlt; jmp 1b`
const SLEEP: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
const PATIENCE: Duration = Duration::from_secs(60);
/// Slots that are free beside entropy.
const FREE_SLOTS: usize = 30;

/// An ELF file with one segment, which begins with the entry.
fn elf(program: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const ENTRY: u64 = 1 << 20;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for value in [ENTRY, 64, 0] {
        file.extend(u64::to_le_bytes(value));
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let len = program.len() as u64;
    for value in [HEADERS, ENTRY, ENTRY, len, len, 0x1000] {
        file.extend(u64::to_le_bytes(value));
    }
    file.extend(program);
    file
}

fn start(test: &str) -> Option<Guest> {
    let [] = files(test, [])?;
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(&elf(SLEEP)).unwrap();
    let mut guest = Guest::launch(|spec, fds| {
        spec.memory_mib = 32;
        // The host would make the guest's few pages a huge one, at a time of its own.
        spec.huge_pages = HugePages::None;
        spec.boot = BootSpec::Kernel {
            kernel_fd: fds.give(kernel),
            initrd_fd: None,
            cmdline: String::new(),
        };
    });
    assert!(matches!(guest.next_event(PATIENCE), Some(Event::Entered { .. })));
    Some(guest)
}

fn disk(id: &str) -> Request {
    Request::AttachDisk(DiskSpec {
        id: id.into(),
        serial: id.into(),
        read_only: false,
        cache: Cache::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Raw { fd: 0 },
    })
}

fn nic(id: &str) -> Request {
    Request::AttachNic(NicSpec {
        id: id.into(),
        mac: "02:00:00:00:00:02".into(),
        tap_fds: vec![0],
        mtu: 1500,
        receive_limit: RateLimit::default(),
        transmit_limit: RateLimit::default(),
    })
}

/// Takes a device out by force, and waits for the news.
fn take_out(guest: &mut Guest, device: &str) {
    let device = device.to_owned();
    let request = Request::Detach {
        device: device.clone(),
        force: true,
    };
    assert_eq!(guest.request(&request), Reply::Ok);
    assert_eq!(guest.next_event(PATIENCE), Some(Event::DeviceDetached { device }));
}

/// KiB of `field`.
fn memory(guest: &Guest, field: &str) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", guest.pid());
    let rollup = std::fs::read_to_string(path).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// How large a mapping that begins with this line of `/proc/PID/smaps` is, in bytes; `None` if none begins there.
fn mapping_len(line: &str) -> Option<u64> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

#[test]
fn a_monitor_is_one_file_and_few_pages_of_its_own() {
    /// KiB of heap, stacks and data: a build without optimisation has about half as much.
    const PAGES_KIB: u64 = 1024;
    /// What is larger is the guest's memory.
    const LARGEST: u64 = 8 << 20;
    let Some(guest) = start("a_monitor_is_one_file_and_few_pages_of_its_own") else {
        return;
    };
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", guest.pid())).unwrap();
    let (mut own, mut anonymous) = (true, 0);
    for line in smaps.lines() {
        if let Some(len) = mapping_len(line) {
            assert!(!line.contains(".so"), "a library: {line}");
            own = len <= LARGEST;
        } else if let Some(kib) = line.strip_prefix("Anonymous:").filter(|_| own) {
            anonymous += kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    eprintln!("{anonymous} KiB");
    assert!(anonymous <= PAGES_KIB, "{anonymous} KiB");
}

#[test]
fn a_monitor_does_not_grow_by_what_comes_and_goes() {
    const WARM_UP: u64 = 200;
    /// Where a thread ends late, the next one takes a stack of its own, which the C library keeps.
    const SLACK_KIB: u64 = 160;
    let test = "a_monitor_does_not_grow_by_what_comes_and_goes";
    let Some(mut guest) = start(test) else {
        return;
    };
    let tap = tap::in_a_namespace(test);
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let rounds: u64 = std::env::var("HEARTH_CHURN").map_or(1000, |rounds| rounds.parse().unwrap());
    let mut before = (0, 0);
    let mut since = Instant::now();
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            before = (guest.descriptors(), memory(&guest, "Anonymous:"));
            since = Instant::now();
        }
        // Ids never come again: nothing may be kept by name.
        let id = format!("vol-{round:017x}");
        assert_eq!(guest.request_with(&disk(&id), &[file.as_fd()]), Reply::Ok);
        take_out(&mut guest, &id);
        if let Some(tap) = &tap {
            let id = format!("eni-{round:017x}");
            assert_eq!(guest.request_with(&nic(&id), &[tap.as_fd()]), Reply::Ok);
            take_out(&mut guest, &id);
        }
    }
    let after = (guest.descriptors(), memory(&guest, "Anonymous:"));
    eprintln!(
        "{rounds} rounds in {:.1} s; descriptors {} -> {}, anonymous memory {} -> {} KiB",
        since.elapsed().as_secs_f32(),
        before.0,
        after.0,
        before.1,
        after.1
    );
    assert_eq!(after.0, before.0, "descriptors");
    assert!(
        after.1 <= before.1 + SLACK_KIB,
        "{} KiB, before {}",
        after.1,
        before.1
    );
}

#[test]
fn an_attached_overlay_grows_and_does_not_shrink() {
    let Some(mut guest) = start("an_attached_overlay_grows") else {
        return;
    };
    let new = || tempfile::tempfile().unwrap();
    let (data, map, base) = (new(), new(), new());
    overlay::create(&data, &map, 0, 1 << 20).unwrap();
    let mut attach = disk("vol-1");
    if let Request::AttachDisk(spec) = &mut attach {
        spec.backing = DiskBacking::Overlay {
            data_fd: 0,
            map_fd: 1,
            base_fd: Some(2),
            coming: None,
            dirty_fd: None,
            key: None,
            base_key: None,
            frozen: None,
        };
    }
    let files = [data.as_fd(), map.as_fd(), base.as_fd()];
    assert_eq!(guest.request_with(&attach, &files), Reply::Ok);
    let device = "vol-1".to_owned();
    let resize = Request::Resize { device };
    data.set_len(1 << 40).unwrap();
    assert_eq!(guest.request(&resize), Reply::Resized { bytes: 1 << 40 });
    assert_eq!(overlay::Overlay::inspect(&map).unwrap().size, 1 << 40);
    data.set_len(1 << 20).unwrap();
    let Reply::Error { message } = guest.request(&resize) else {
        panic!("it shrank");
    };
    assert!(message.contains("an overlay cannot shrink"), "{message}");
    take_out(&mut guest, "vol-1");
}

#[test]
fn disks_are_frozen_at_one_moment_and_thawed() {
    let Some(mut guest) = start("disks_are_frozen_at_one_moment") else {
        return;
    };
    let new = || tempfile::tempfile().unwrap();
    let raw = new();
    raw.set_len(1 << 20).unwrap();
    assert_eq!(guest.request_with(&disk("vol-raw"), &[raw.as_fd()]), Reply::Ok);
    let descriptors = guest.descriptors();
    let about = overlay::dirty::About {
        base: String::new(),
        boot: "1".to_owned(),
    };
    let mut maps = Vec::new();
    for (id, size) in [("vol-1", 1 << 30), ("vol-2", 1 << 40)] {
        let (data, map, dirty) = (new(), new(), new());
        overlay::create(&data, &map, 0, size).unwrap();
        overlay::dirty::create(&dirty, &about, &map, false).unwrap();
        let mut attach = disk(id);
        if let Request::AttachDisk(spec) = &mut attach {
            spec.backing = DiskBacking::Overlay {
                data_fd: 0,
                map_fd: 1,
                base_fd: None,
                coming: None,
                dirty_fd: Some(2),
                key: None,
                base_key: None,
                frozen: None,
            };
        }
        let files = [data.as_fd(), map.as_fd(), dirty.as_fd()];
        assert_eq!(guest.request_with(&attach, &files), Reply::Ok);
        maps.push(map);
    }
    let spec = |device: &str, place| FreezeSpec {
        device: device.to_owned(),
        name: "snap-1".to_owned(),
        frozen: place,
        dirty: place + 1,
    };
    let files = [new(), new(), new(), new()];
    let all: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let both = Request::Freeze(vec![spec("vol-1", 0), spec("vol-2", 2)]);
    // Twice is once.
    for _ in 0..2 {
        let Reply::Frozen { paused_micros } = guest.request_with(&both, &all) else {
            panic!("they are not frozen");
        };
        eprintln!("MEASURED: paused for {paused_micros} µs to freeze disks of 1 GiB and 1 TiB");
        assert!(overlay::frozen::is_frozen(&files[0]).unwrap());
        assert!(overlay::frozen::is_frozen(&files[2]).unwrap());
    }
    let mut refused = |request: Request, why: &str| {
        let Reply::Error { message } = guest.request_with(&request, &all) else {
            panic!("{request:?} was not refused");
        };
        assert!(message.contains(why), "{message}");
    };
    let other = FreezeSpec {
        name: "snap-2".to_owned(),
        ..spec("vol-1", 0)
    };
    refused(Request::Freeze(vec![other]), "it is frozen as snap-1 already");
    refused(
        Request::Freeze(vec![spec("vol-raw", 0)]),
        "freezing device \"vol-raw\"",
    );
    refused(
        Request::Freeze(vec![spec("vol-none", 0)]),
        "no device \"vol-none\"",
    );
    refused(
        Request::Freeze(vec![spec("vol-1", 4)]),
        "descriptor 4 for the frozen contents",
    );
    refused(Request::Freeze(vec![spec("rng", 0)]), "is no disk");
    for id in ["vol-1", "vol-2"] {
        for name in ["snap-2", "snap-1", "snap-1"] {
            let thaw = Request::Thaw {
                device: id.to_owned(),
                name: name.to_owned(),
            };
            assert_eq!(guest.request(&thaw), Reply::Ok);
        }
        take_out(&mut guest, id);
    }
    assert_eq!(guest.descriptors(), descriptors);
}

#[test]
fn a_full_machine_and_wrong_requests_say_so() {
    let Some(mut guest) = start("a_full_machine_and_wrong_requests") else {
        return;
    };
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let descriptors = guest.descriptors();
    let refused = |guest: &mut Guest, request: &Request, why: &str| {
        let Reply::Error { message } = guest.request_with(request, &[file.as_fd()]) else {
            panic!("{request:?} was not refused");
        };
        assert!(message.contains(why), "{message}");
    };
    for n in 0..FREE_SLOTS {
        let reply = guest.request_with(&disk(&format!("vol-{n}")), &[file.as_fd()]);
        assert_eq!(reply, Reply::Ok);
    }
    refused(
        &mut guest,
        &disk("vol-more"),
        "all 31 slots of the machine are taken",
    );
    refused(&mut guest, &disk("vol-7"), "attached already");
    take_out(&mut guest, "vol-7");
    let mut wrong = disk("vol-x");
    if let Request::AttachDisk(spec) = &mut wrong {
        spec.backing = DiskBacking::Raw { fd: 1 };
    }
    refused(&mut guest, &wrong, "descriptor 1 for the disk");
    refused(&mut guest, &nic("eni-x"), "attaching device \"eni-x\"");
    let gone = |device: &str, force| Request::Detach {
        device: device.into(),
        force,
    };
    refused(
        &mut guest,
        &gone("vol-7", false),
        "no device \"vol-7\" is attached",
    );
    refused(&mut guest, &gone("rng", true), "the machine needs it");
    let device = "rng".to_owned();
    refused(&mut guest, &Request::Resize { device }, "is no disk");
    // A guest that does not answer is asked again, and then not any more.
    for _ in 0..2 {
        assert_eq!(guest.request(&gone("vol-8", false)), Reply::Ok);
    }
    let Reply::Devices(devices) = guest.request(&Request::Devices) else {
        panic!("no list");
    };
    let leaving: Vec<_> = devices
        .iter()
        .filter(|it| it.leaving)
        .map(|it| &it.device[..])
        .collect();
    assert_eq!(leaving, ["vol-8"]);
    for device in devices.iter().filter(|it| it.kind == "block") {
        take_out(&mut guest, &device.device);
    }
    assert_eq!(guest.descriptors(), descriptors);
}
