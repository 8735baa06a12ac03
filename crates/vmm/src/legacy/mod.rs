//! The few PC devices that guests still expect at I/O ports.

pub mod cmos;
pub mod firmware;
pub mod pm_timer;
pub mod power;
pub mod serial;

/// The keyboard controller's command port; its only command here is to pull the reset line.
pub const KEYBOARD_CONTROLLER_COMMAND: u16 = 0x64;
pub const KEYBOARD_CONTROLLER_DATA: u16 = 0x60;
/// "Pulse output line 0", which is wired to the processor's reset.
pub const KEYBOARD_CONTROLLER_RESET: u8 = 0xfe;
