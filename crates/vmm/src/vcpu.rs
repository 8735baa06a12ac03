//! A vCPU's thread: enters the guest, serves its exits, rests while the machine is paused, ends when the boot ends.
//!
//! A thread that rests has given its vCPU away, to whoever paused the machine: the state is read there, without a
//! lock, and the thread itself needs no system call for it.

mod state;

pub use state::{Shape, VcpuState};

use std::cell::Cell;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::thread::{CpuSet, sched_setaffinity};
use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::jail::{self, Role};
use crate::metrics::{Exit, Vcpu, VcpuMeter};
use crate::notices::{Ending, Notices};

/// Exit handling needs little; the pages are taken only when touched.
const STACK_SIZE: usize = 256 << 10;
/// `emulation_failure.flags`: the instruction's bytes are given.
const EMULATION_FAILURE_HAS_BYTES: u64 = 1;

thread_local! {
    /// The `immediate_exit` byte of this thread's vCPU, for the signal handler.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// A running vCPU.
pub struct VcpuThread {
    thread: JoinHandle<()>,
    rests: Sender<Rest>,
}

/// Where a thread gives its vCPU, and where it gets it back.
struct Rest {
    give: Sender<VcpuFd>,
    back: Receiver<VcpuFd>,
}

/// A vCPU on its way out of the guest.
pub struct Stopping {
    given: Receiver<VcpuFd>,
    back: Sender<VcpuFd>,
}

impl Stopping {
    /// Waits until the vCPU is out of the guest, and what it was doing on the bus is done. `None`: its thread has
    /// ended, and the boot ends.
    #[must_use]
    pub fn wait(self) -> Option<Resting> {
        let vcpu = self.given.recv().ok()?;
        Some(Resting {
            vcpu,
            back: self.back,
        })
    }
}

/// A vCPU that does not run. Dropping it ends its thread.
pub struct Resting {
    pub vcpu: VcpuFd,
    back: Sender<VcpuFd>,
}

impl Resting {
    /// Lets the vCPU go on.
    pub fn resume(self) {
        // A thread that is gone has said why.
        let _ = self.back.send(self.vcpu);
    }
}

impl VcpuThread {
    /// Starts vCPU `index`, on the host's `cpu` if that is said; the first one (0) says so in `notices` when it is
    /// about to enter the guest. Exits are counted in `metrics`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start(
        index: u8,
        cpu: Option<u16>,
        vcpu: VcpuFd,
        bus: Arc<Bus>,
        notices: Arc<Notices>,
        metrics: Arc<Vcpu>,
    ) -> io::Result<Self> {
        install_kick_handler()?;
        let (rests, asked) = channel();
        let builder = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_SIZE);
        let thread = jail::spawn(Role::Vcpu, builder, move || {
            if let Some(cpu) = cpu {
                pin(index, cpu);
            }
            let meter = metrics.on_this_thread();
            let ending = catch_unwind(AssertUnwindSafe(|| {
                run(index, vcpu, &bus, &notices, meter, &asked)
            }));
            match ending {
                Ok(Some(ending)) => notices.end(ending),
                Ok(None) => {}
                Err(_) => notices.end(Ending::Crash(format!("vCPU {index}'s thread panicked"))),
            }
        })?;
        Ok(Self { thread, rests })
    }

    /// Asks the thread to rest, without waiting for it: so all vCPUs of a machine stop at about the same time.
    #[must_use]
    pub fn rest(&self) -> Stopping {
        let (give, given) = channel();
        let (back, returned) = channel();
        // A thread that is gone drops it, which `wait` sees.
        let _ = self.rests.send(Rest { give, back: returned });
        self.kick();
        Stopping { given, back }
    }

    /// Makes the vCPU leave the guest, and look whether it shall rest or the boot ends.
    pub fn kick(&self) {
        // SAFETY: the handle is not joined yet, so the thread's id is valid, even if it has returned.
        unsafe { libc::pthread_kill(self.thread.as_pthread_t(), SIGRTMIN()) };
    }

    /// Waits for the thread's end; [`Self::kick`] it first, or drop what it gave when it rested.
    pub fn join(self) {
        // Its panic is a notice already.
        let _ = self.thread.join();
    }
}

/// Keeps the calling thread on a CPU. A guest is better off elsewhere than nowhere, if the host took it offline.
fn pin(index: u8, cpu: u16) {
    let mut cpus = CpuSet::new();
    if usize::from(cpu) < CpuSet::MAX_CPU {
        cpus.set(usize::from(cpu));
    }
    if let Err(error) = sched_setaffinity(None, &cpus) {
        tracing::warn!(%error, index, cpu, "pinning a vCPU");
    }
}

/// A signal between the look at the flag and KVM_RUN must not get lost, so the handler also sets
/// `immediate_exit`, which KVM_RUN looks at.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let immediate_exit = IMMEDIATE_EXIT.get();
    if !immediate_exit.is_null() {
        // SAFETY: points into this thread's own `kvm_run`, and is cleared before that is unmapped.
        unsafe { ptr::write_volatile(immediate_exit, 1) };
    }
}

fn install_kick_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), errno::Error>> = OnceLock::new();
    Ok((*INSTALLED.get_or_init(|| register_signal_handler(SIGRTMIN(), on_kick)))?)
}

/// Forgets the pointer before the vCPU that it points into is dropped.
struct KickTarget;

impl KickTarget {
    fn new(vcpu: &mut VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
        Self
    }
}

impl Drop for KickTarget {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// Runs until the boot ends: `None` when someone else ended it.
fn run(
    index: u8,
    mut vcpu: VcpuFd,
    bus: &Bus,
    notices: &Notices,
    mut meter: VcpuMeter,
    asked: &Receiver<Rest>,
) -> Option<Ending> {
    if index == 0 {
        notices.entered();
    }
    loop {
        match run_until_rest(index, &mut vcpu, bus, notices, &mut meter, asked) {
            Left::Resting(rest) => {
                // Either fails when the machine is ended meanwhile.
                rest.give.send(vcpu).ok()?;
                vcpu = rest.back.recv().ok()?;
            }
            Left::Ended(ending) => return ending,
        }
    }
}

/// Why a thread has left the guest.
enum Left {
    Resting(Rest),
    Ended(Option<Ending>),
}

fn run_until_rest(
    index: u8,
    vcpu: &mut VcpuFd,
    bus: &Bus,
    notices: &Notices,
    meter: &mut VcpuMeter,
    asked: &Receiver<Rest>,
) -> Left {
    let _kickable = KickTarget::new(vcpu);
    while !notices.is_ending() {
        let rest = asked.try_recv().ok();
        if rest.is_some() {
            // KVM carries out what it has been told about the last exit when it is entered, and only then is the
            // vCPU's state whole; it leaves again before the guest runs.
            vcpu.set_kvm_immediate_exit(1);
        }
        loop {
            match (step(index, vcpu, bus, meter), rest.is_some()) {
                (Step::Ended(ending), _) => return Left::Ended(Some(ending)),
                (Step::Served, true) => {}
                (Step::Served, false) | (Step::Interrupted, _) => break,
            }
        }
        if let Some(rest) = rest {
            return Left::Resting(rest);
        }
    }
    Left::Ended(None)
}

/// What came of entering the guest once.
enum Step {
    Served,
    Interrupted,
    Ended(Ending),
}

fn step(index: u8, vcpu: &mut VcpuFd, bus: &Bus, meter: &mut VcpuMeter) -> Step {
    let exit = vcpu.run();
    meter.count(kind(&exit));
    match exit {
        Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
        Ok(VcpuExit::IoOut(port, data)) => bus.port_write(port, data),
        Ok(VcpuExit::MmioRead(address, data)) => bus.mmio_read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.mmio_write(address, data),
        // A triple fault: a PC resets.
        Ok(VcpuExit::Shutdown) => return Step::Ended(Ending::Reset),
        Ok(VcpuExit::SystemEvent(kind, _)) => return Step::Ended(system_event(kind)),
        Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
        Ok(VcpuExit::InternalError) => {
            return Step::Ended(Ending::Crash(internal_error(index, vcpu)));
        }
        Ok(exit) => {
            let what = format!("{exit:?}");
            return Step::Ended(Ending::Crash(crash(index, &what, vcpu)));
        }
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            vcpu.set_kvm_immediate_exit(0);
            return Step::Interrupted;
        }
        Err(error) => {
            let what = format!("KVM_RUN failed: {error}");
            return Step::Ended(Ending::Crash(crash(index, &what, vcpu)));
        }
    }
    Step::Served
}

fn kind(exit: &Result<VcpuExit<'_>, errno::Error>) -> Exit {
    match exit {
        Ok(VcpuExit::IoIn(..)) => Exit::PortRead,
        Ok(VcpuExit::IoOut(..)) => Exit::PortWrite,
        Ok(VcpuExit::MmioRead(..)) => Exit::MmioRead,
        Ok(VcpuExit::MmioWrite(..)) => Exit::MmioWrite,
        Ok(VcpuExit::Intr) => Exit::Interrupted,
        Err(error) if error.errno() == libc::EINTR => Exit::Interrupted,
        _ => Exit::Other,
    }
}

fn system_event(kind: u32) -> Ending {
    match kind {
        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Ending::PowerOff,
        kvm_bindings::KVM_SYSTEM_EVENT_RESET => Ending::Reset,
        _ => Ending::Crash(format!("KVM reported system event {kind}")),
    }
}

fn crash(index: u8, what: &str, vcpu: &VcpuFd) -> String {
    match vcpu.get_regs() {
        Ok(regs) => format!("vCPU {index} at rip {:#x}: {what}", regs.rip),
        Err(_) => format!("vCPU {index}: {what}"),
    }
}

/// Says which instruction KVM could not emulate.
fn internal_error(index: u8, vcpu: &mut VcpuFd) -> String {
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, so this is the union's valid field; all of its
    // bytes are plain integers.
    let failure = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.emulation_failure };
    let mut what = format!("KVM internal error, suberror {}", failure.suberror);
    if failure.suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION
        && failure.ndata >= 3
        && failure.flags & EMULATION_FAILURE_HAS_BYTES != 0
    {
        // SAFETY: the flag says that these bytes were filled in; they are plain integers.
        let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        let len = usize::from(bytes.insn_size).min(bytes.insn_bytes.len());
        what += &format!(", instruction {:02x?}", &bytes.insn_bytes[..len]);
    }
    crash(index, &what, vcpu)
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_its_cpu() {
        thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let last = (0..CpuSet::MAX_CPU)
                .rev()
                .find(|&cpu| allowed.is_set(cpu))
                .unwrap();
            pin(0, u16::try_from(last).unwrap());
            let pinned = sched_getaffinity(None).unwrap();
            assert!(pinned.is_set(last) && pinned.count() == 1);
            // No host has it: the thread stays where it was.
            pin(0, u16::MAX);
            assert_eq!(sched_getaffinity(None).unwrap(), pinned);
        })
        .join()
        .unwrap();
    }
}
