//! ACPI's sleep and reset registers of hardware-reduced machines. ACPI 6.5, sections 4.8.3.6 and 4.8.3.7.

use crate::notices::Ending;

pub const SLEEP_CONTROL_PORT: u16 = 0x600;
pub const SLEEP_STATUS_PORT: u16 = 0x601;
pub const RESET_PORT: u16 = 0x602;
pub const RESET_VALUE: u8 = 0x01;
/// The sleep type of S5, as `\_S5` in the DSDT says.
pub const SLEEP_TYPE_S5: u8 = 5;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// What a byte written to one of the ports asks for.
#[must_use]
pub fn write(port: u16, value: u8) -> Option<Ending> {
    let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    match port {
        SLEEP_CONTROL_PORT if value & SLEEP_ENABLE != 0 && sleep_type == SLEEP_TYPE_S5 => {
            Some(Ending::PowerOff)
        }
        RESET_PORT if value == RESET_VALUE => Some(Ending::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_powers_off() {
        assert_eq!(write(SLEEP_CONTROL_PORT, 0x34), Some(Ending::PowerOff));
        assert_eq!(write(SLEEP_CONTROL_PORT, 0x14), None);
        assert_eq!(write(SLEEP_CONTROL_PORT, 0x24), None);
        assert_eq!(write(RESET_PORT, 1), Some(Ending::Reset));
        assert_eq!(write(RESET_PORT, 0), None);
    }
}
