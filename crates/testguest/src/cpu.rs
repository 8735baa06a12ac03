//! The processor: ports, interrupts, waiting, time, and memory accesses of exactly one width.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

global_asm!(include_str!("entry.s"), options(att_syntax));

/// The first interrupt vector that devices may use.
pub const FIRST_DEVICE_VECTOR: u8 = 0x30;
/// Device vectors from there on.
pub const DEVICE_VECTORS: u8 = 16;
/// Where messages go that shall interrupt the first processor.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

const TICK_VECTOR: u8 = 0x20;
const SPURIOUS_VECTOR: u8 = 0x2f;
const SPURIOUS: u64 = LOCAL_APIC + 0xf0;
const TIMER: u64 = LOCAL_APIC + 0x320;
const TIMER_INITIAL: u64 = LOCAL_APIC + 0x380;
const TIMER_DIVIDE: u64 = LOCAL_APIC + 0x3e0;
const SOFTWARE_ENABLED: u32 = 1 << 8;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
/// 10 ms where the timer counts nanoseconds, as KVM's does.
const TICK: u32 = 10_000_000;
const TICKS_PER_SECOND: u64 = 100;
/// Looks before sleeping. A device usually answers within that time.
const SPINS: u32 = 200;

/// The interrupt masks of the two 8259s.
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];
const KEYBOARD_CONTROLLER: u16 = 0x64;
const PULSE_RESET: u8 = 0xfe;

unsafe extern "C" {
    /// Counted by entry.s.
    #[link_name = "interrupt_counts"]
    static COUNTS: [AtomicU64; 256];
    #[link_name = "interrupt_total"]
    static TOTAL: AtomicU64;
}

/// From now on interrupts arrive, and one each tick, so that nobody sleeps for ever.
pub fn enable_interrupts() {
    // What comes by the old controller would look like an exception.
    for mask in PIC_MASKS {
        port_write(mask, &[0xff]);
    }
    write(SPURIOUS, SOFTWARE_ENABLED | u32::from(SPURIOUS_VECTOR));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER, PERIODIC | u32::from(TICK_VECTOR));
    write(TIMER_INITIAL, TICK);
}

/// How often an interrupt came.
pub fn interrupts(vector: u8) -> u64 {
    // SAFETY: entry.s defines it so; all accesses are atomic.
    unsafe { COUNTS[usize::from(vector)].load(Ordering::SeqCst) }
}

/// Waits until `condition` holds, asleep between interrupts; false after `seconds`.
pub fn wait_for(seconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        if condition() {
            return true;
        }
        core::hint::spin_loop();
    }
    let deadline = interrupts(TICK_VECTOR) + seconds * TICKS_PER_SECOND;
    loop {
        // SAFETY: as in `interrupts`.
        let seen = unsafe { TOTAL.load(Ordering::SeqCst) };
        if condition() {
            return true;
        }
        if interrupts(TICK_VECTOR) > deadline {
            return false;
        }
        halt(seen);
    }
}

/// Waits for `ticks` hundredths of a second.
pub fn sleep(ticks: u64) {
    let deadline = interrupts(TICK_VECTOR) + ticks;
    while interrupts(TICK_VECTOR) < deadline {
        // SAFETY: as in `interrupts`.
        halt(unsafe { TOTAL.load(Ordering::SeqCst) });
    }
}

/// Hundredths of a second since [`enable_interrupts`].
pub fn hundredths() -> u64 {
    interrupts(TICK_VECTOR)
}

/// Halts until an interrupt, unless one came since the total was `seen`; entry.s executes it.
fn halt(seen: u64) {
    // SAFETY: it changes nothing but the interrupt counters, which are atomic.
    unsafe { asm!("hlt", in("rdi") seen) };
}

pub fn port_read(port: u16) -> u8 {
    let value;
    // SAFETY: ports are devices' registers, not memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

pub fn port_write(port: u16, bytes: &[u8]) {
    // SAFETY: it reads the bytes, and ports are devices' registers, not memory.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _);
    }
}

/// The time stamp counter, after all that comes before it.
pub fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

/// Resets the machine: at a monitor that restarts its guests, the caller has printed why.
pub fn reset() -> ! {
    port_write(KEYBOARD_CONTROLLER, &[PULSE_RESET]);
    loop {
        sleep(1);
    }
}

/// A number that one instruction moves between a register and memory.
pub trait Word: Copy {
    /// # Safety
    /// `address` is mapped and not used by Rust.
    unsafe fn load(address: u64) -> Self;
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn store(self, address: u64);
}

macro_rules! word {
    ($type:ty, $class:ident, $suffix:literal) => {
        impl Word for $type {
            unsafe fn load(address: u64) -> Self {
                let value;
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(concat!("mov {0", $suffix, "}, [{1}]"), out($class) value, in(reg) address,
                        options(nostack, preserves_flags));
                }
                value
            }

            unsafe fn store(self, address: u64) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(concat!("mov [{1}], {0", $suffix, "}"), in($class) self, in(reg) address,
                        options(nostack, preserves_flags));
                }
            }
        }
    };
}

word!(u8, reg_byte, "");
word!(u16, reg, ":x");
word!(u32, reg, ":e");
word!(u64, reg, ":r");

/// Reads a device's register or what a device wrote: memory outside of the image, by one access, which may be
/// misaligned.
pub fn read<T: Word>(address: u64) -> T {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the first 4 GiB are mapped, what is above is by `memory::map`; Rust's own memory is in the image,
    // and its addresses are not handed out.
    unsafe { T::load(address) }
}

/// Writes as [`read`] reads.
pub fn write<T: Word>(address: u64, value: T) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as in `read`.
    unsafe { value.store(address) };
}
