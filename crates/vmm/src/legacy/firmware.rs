//! The devices that only a machine with firmware has: real-time clock, ACPI timer, PCI configuration ports, and the
//! port by which the firmware says that it has nothing to boot.
//!
//! They are where edk2's CloudHv platform looks for them (`OvmfPkg/Include/IndustryStandard/CloudHv.h`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::cmos::{self, Cmos};
use super::pm_timer::{self, PmTimer};
use crate::memory::Layout;
use crate::notices::{Ending, Notices};
use crate::pci::ports::{self, ConfigPorts};
use crate::pci::root::PciRoot;
use crate::snapshot::{Saved, StateError};

/// Where the firmware says how booting went (`images/firmware/hearth.patch`).
pub const STATUS_PORT: u16 = 0x603;
/// No boot option could be started.
pub const STATUS_NOTHING_BOOTABLE: u8 = 1;

const PART: &str = "firmware's devices";

#[derive(Serialize, Deserialize)]
struct State {
    cmos: Cmos,
    ticks: u32,
    config_address: u32,
}

pub struct FirmwarePorts {
    cmos: Mutex<Cmos>,
    timer: PmTimer,
    config: ConfigPorts,
    notices: Arc<Notices>,
}

impl FirmwarePorts {
    #[must_use]
    pub fn new(layout: &Layout, root: Arc<PciRoot>, notices: Arc<Notices>) -> Self {
        let state = State {
            cmos: Cmos::new(layout),
            ticks: 0,
            config_address: 0,
        };
        Self::of(state, root, notices)
    }

    /// Ports that go on from what [`Self::save`] gave.
    ///
    /// # Errors
    /// It is no state of theirs.
    pub fn restored(saved: &Saved, root: Arc<PciRoot>, notices: Arc<Notices>) -> Result<Self, StateError> {
        let state: State = saved.read(PART)?;
        state.cmos.check()?;
        Ok(Self::of(state, root, notices))
    }

    fn of(state: State, root: Arc<PciRoot>, notices: Arc<Notices>) -> Self {
        Self {
            cmos: Mutex::new(state.cmos),
            timer: PmTimer::new(state.ticks),
            config: ConfigPorts::new(root, state.config_address),
            notices,
        }
    }

    /// # Errors
    /// The state cannot be encoded.
    pub fn save(&self) -> Result<Saved, StateError> {
        let state = State {
            cmos: self.cmos().clone(),
            ticks: self.timer.ticks(),
            config_address: self.config.address(),
        };
        Saved::of(PART, &state)
    }

    /// Says whether the port is one of these; only then `data` is read.
    pub fn read(&self, port: u16, data: &mut [u8]) -> bool {
        match port {
            cmos::INDEX_PORT | cmos::DATA_PORT => {
                data.fill(0xff);
                let cmos = self.cmos();
                for (at, byte) in (port..=cmos::DATA_PORT).zip(data) {
                    *byte = cmos.read(at);
                }
            }
            pm_timer::PORT..=pm_timer::LAST_PORT => {
                data.fill(0xff);
                let ticks = self.timer.ticks().to_le_bytes();
                let from = usize::from(port - pm_timer::PORT);
                for (byte, tick) in data.iter_mut().zip(&ticks[from..]) {
                    *byte = *tick;
                }
            }
            ports::ADDRESS_PORT..=ports::LAST_PORT => self.config.read(port, data),
            _ => return false,
        }
        true
    }

    /// Says whether the port is one of these; only then `data` is written.
    pub fn write(&self, port: u16, data: &[u8]) -> bool {
        match port {
            cmos::INDEX_PORT | cmos::DATA_PORT => {
                let mut cmos = self.cmos();
                for (at, byte) in (port..=cmos::DATA_PORT).zip(data) {
                    cmos.write(at, *byte);
                }
            }
            STATUS_PORT => {
                if data.first() == Some(&STATUS_NOTHING_BOOTABLE) {
                    self.notices.end(Ending::NothingBootable);
                }
            }
            ports::ADDRESS_PORT..=ports::LAST_PORT => self.config.write(port, data),
            _ => return false,
        }
        true
    }

    fn cmos(&self) -> MutexGuard<'_, Cmos> {
        self.cmos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{GIB, MIB};
    use crate::notices::Notice;
    use crate::pci::ports::{ADDRESS_PORT, DATA_PORT};
    use crate::pci::root::HostBridge;
    use crate::pci::testing::Events;

    fn root() -> Arc<PciRoot> {
        let events = Arc::new(Events::default());
        Arc::new(PciRoot::new(events, (32 * GIB, 32 * GIB), HostBridge::FIRMWARE))
    }

    fn ports(notices: &Arc<Notices>) -> FirmwarePorts {
        FirmwarePorts::new(&Layout::new(512 * MIB), root(), Arc::clone(notices))
    }

    fn read<const N: usize>(ports: &FirmwarePorts, port: u16) -> [u8; N] {
        let mut data = [0; N];
        assert!(ports.read(port, &mut data));
        data
    }

    #[test]
    fn a_restored_machine_has_its_timer_clock_and_configuration_address() {
        let notices = Arc::new(Notices::new().unwrap());
        let ports = ports(&notices);
        ports.write(ADDRESS_PORT, &0x8000_0000_u32.to_le_bytes());
        ports.write(cmos::INDEX_PORT, &[0x40]);
        ports.write(cmos::DATA_PORT, &[0x5a]);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let before = u32::from_le_bytes(read(&ports, pm_timer::PORT));
        let saved = ports.save().unwrap();
        let restored = FirmwarePorts::restored(&saved, root(), notices).unwrap();
        assert_eq!(read(&restored, DATA_PORT), 0x0d57_8086_u32.to_le_bytes());
        assert_eq!(read(&restored, cmos::DATA_PORT), [0x5a]);
        let after = u32::from_le_bytes(read(&restored, pm_timer::PORT));
        assert!(before > 10_000 && after >= before, "{before} {after}");
        assert!(
            FirmwarePorts::restored(&Saved::default(), root(), Arc::new(Notices::new().unwrap())).is_err()
        );
    }

    #[test]
    fn a_read_of_the_timer_is_of_one_moment_and_its_bytes_can_be_read() {
        let ports = ports(&Arc::new(Notices::new().unwrap()));
        let [_, _, _, top] = read::<4>(&ports, pm_timer::PORT);
        assert_eq!((top, read(&ports, pm_timer::LAST_PORT)), (0, [0]));
        assert_eq!(read::<2>(&ports, cmos::DATA_PORT)[1], 0xff);
        assert!(!ports.read(0x60f, &mut [0]));
    }

    #[test]
    fn only_the_firmwares_word_ends_the_machine() {
        let notices = Arc::new(Notices::new().unwrap());
        let ports = ports(&notices);
        for word in [&[][..], &[0], &[2]] {
            ports.write(STATUS_PORT, word);
        }
        assert!(!notices.is_ending());
        ports.write(STATUS_PORT, &[STATUS_NOTHING_BOOTABLE]);
        assert_eq!(notices.take(), [Notice::Ending(Ending::NothingBootable)]);
    }
}
