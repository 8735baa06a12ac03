//! What a vCPU's thread counts: why it left the guest.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::cells::Counter;
use super::lock;
use super::report::VcpuReport;

/// Why a vCPU came back from KVM. What KVM answers in the kernel (doorbells, the interrupt controllers, HLT) is
/// not seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    PortRead,
    PortWrite,
    MmioRead,
    MmioWrite,
    /// A signal, as for a pause.
    Interrupted,
    /// Whatever else: triple faults, system events, errors.
    Other,
}

impl Exit {
    const ALL: [Self; 6] = [
        Self::PortRead,
        Self::PortWrite,
        Self::MmioRead,
        Self::MmioWrite,
        Self::Interrupted,
        Self::Other,
    ];
}

/// A vCPU's numbers.
#[derive(Default)]
#[repr(align(128))] // The processor fetches cache lines by pairs.
pub struct Vcpu {
    exits: [Counter; Exit::ALL.len()],
    time: Mutex<CpuTime>,
}

/// CPU time of the threads that this vCPU has had, one for each boot.
#[derive(Default)]
struct CpuTime {
    ended_ns: u64,
    running: Option<libc::clockid_t>,
}

impl CpuTime {
    fn total_ns(&self) -> u64 {
        self.ended_ns + self.running.map_or(0, clock_ns)
    }
}

impl Vcpu {
    /// The pen of the vCPU's thread, for the thread that calls this.
    pub fn on_this_thread(self: &Arc<Self>) -> VcpuMeter {
        lock(&self.time).running = this_threads_clock();
        VcpuMeter {
            vcpu: Arc::clone(self),
        }
    }

    pub(super) fn report(&self, id: u8) -> VcpuReport {
        VcpuReport {
            id,
            cpu_ns: lock(&self.time).total_ns(),
            exits: Exit::ALL
                .into_iter()
                .zip(self.exits.iter().map(Counter::get))
                .collect(),
        }
    }
}

/// A vCPU's thread counts its exits with this.
pub struct VcpuMeter {
    vcpu: Arc<Vcpu>,
}

impl VcpuMeter {
    pub fn count(&mut self, exit: Exit) {
        // In range by the array's length; the compiler sees it.
        self.vcpu.exits[exit as usize].add(1);
    }
}

impl Drop for VcpuMeter {
    /// The thread's clock ends with the thread.
    fn drop(&mut self) {
        let mut time = lock(&self.vcpu.time);
        time.ended_ns = time.total_ns();
        time.running = None;
    }
}

fn this_threads_clock() -> Option<libc::clockid_t> {
    let mut clock = 0;
    // SAFETY: the thread that calls is alive, and the clock's id is a number that is ours.
    let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    (error == 0).then_some(clock)
}

/// Zero for the clock of a thread that is gone.
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is ours; the kernel checks the clock's id.
    unsafe { libc::clock_gettime(clock, &mut time) };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
