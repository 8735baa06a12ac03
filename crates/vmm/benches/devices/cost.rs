//! What the device's threads spend, the driver's own thread not counted.

use std::fs::{File, read_to_string};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const TRACEPOINT: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// A state of the meters, or the difference of two.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub cpu: Duration,
    /// None if nobody may count them.
    pub system_calls: Option<u64>,
}

impl Cost {
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            system_calls: self
                .system_calls
                .zip(before.system_calls)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.system_calls = other
            .system_calls
            .map(|calls| calls + self.system_calls.unwrap_or(0));
    }
}

/// Counts for this thread, and for those that it starts from now on.
pub struct Meters {
    all: Option<File>,
    own: Option<File>,
}

impl Meters {
    pub fn new() -> Self {
        Self {
            all: system_calls(true),
            own: system_calls(false),
        }
    }

    pub fn read(&mut self) -> Cost {
        let count = |counter: &mut Option<File>| {
            let mut bytes = [0; 8];
            counter.as_mut()?.read_exact(&mut bytes).ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let (own, all) = (count(&mut self.own), count(&mut self.all));
        Cost {
            // The process's clock may lag behind this thread's by what it does now.
            cpu: time(ClockId::ProcessCPUTime).saturating_sub(time(ClockId::ThreadCPUTime)),
            // One reads the other's last call.
            system_calls: all.zip(own).map(|(all, own)| all.saturating_sub(own)),
        }
    }
}

fn time(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// A counter of `perf_event_open(2)`.
fn system_calls(with_new_threads: bool) -> Option<File> {
    const TYPE_TRACEPOINT: u64 = 2;
    const INHERIT: u64 = 1 << 1;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    let id = TRACEPOINT.iter().find_map(|path| read_to_string(path).ok())?;
    // `struct perf_event_attr`, as its first version had it: type and size, config, then what is zero here, and flags.
    let mut attributes = [0_u64; 8];
    attributes[0] = TYPE_TRACEPOINT | (size_of_val(&attributes) as u64) << 32;
    attributes[1] = id.trim().parse().ok()?;
    attributes[5] = if with_new_threads { INHERIT } else { 0 };
    let (this_thread, any_cpu, no_group) = (0, -1, -1);
    // SAFETY: the kernel reads the attributes, whose size they state.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: it was just opened, for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}
