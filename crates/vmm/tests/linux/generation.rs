//! The generation id, as the guest's kernel hears of it.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_vmm::boot::Source;
use hearth_vmm::console::Line;
use hearth_vmm::devices::{Backend, Devices};
use hearth_vmm::limits::Limiter;
use hearth_vmm::machine::{Machine, Plan};
use hearth_vmm::memory::HugePages;
use rustix::event::{PollFd, PollFlags, poll};

use super::guest::{cmdline, files};

const PATIENCE: Duration = Duration::from_secs(500);

/// Reads the guest's output until it has `text` in it.
fn wait_for(line: &Line, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut output = String::new();
    // SAFETY: the line keeps its bell open.
    let bell = unsafe { BorrowedFd::borrow_raw(line.as_raw_fd()) };
    loop {
        line.quiet();
        while line.await_output() {
            let mut new = VecDeque::new();
            assert_eq!(line.take(&mut new), 0, "nobody looked for too long");
            output.push_str(&String::from_utf8_lossy(new.make_contiguous()));
        }
        if output.contains(text) {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&bell, PollFlags::IN)];
        let rung = poll(&mut fds, Some(&left.try_into().unwrap())).unwrap();
        assert_eq!(rung, 1, "no {text:?}:\n{output}");
    }
}

#[test]
fn a_new_generation_reseeds_the_guests_random_numbers() {
    let test = "a_new_generation_reseeds";
    let Some([kernel, initrd]) = files(test, ["HEARTH_KERNEL", "HEARTH_SHELL"]) else {
        return;
    };
    let mut devices = Devices::default();
    let unlimited = Limiter::new(&Default::default());
    devices.add("rng", Backend::Rng(unlimited)).unwrap();
    let open = |path| Arc::new(File::open(path).unwrap());
    let plan = Plan {
        kvm: kvm_ioctls::Kvm::new().unwrap(),
        instance_id: "i-0123456789abcdef0".into(),
        uuid: "ec2a1b2c-3d4e-4f60-8182-93a4b5c6d7e8".into(),
        vcpus: 1,
        cpus: Vec::new(),
        cpu: Default::default(),
        memory_mib: 96,
        huge_pages: HugePages::default(),
        source: Source::Files {
            kernel: open(kernel),
            initrd: Some(open(initrd)),
            // Notices, which are the kernel's words for it.
            cmdline: cmdline().replace("quiet", "loglevel=6"),
        },
        restore: None,
        devices,
        hotplug: false,
        bases: Default::default(),
        metrics: Default::default(),
    };
    let line = Line::new().unwrap();
    let machine = Machine::start(&plan, &line).unwrap();
    wait_for(&line, "\u{1e}ready");
    machine.generation.renew().unwrap();
    wait_for(&line, "random: crng reseeded due to virtual machine fork");
    machine.stop();
}
