//! Where port and memory accesses of vCPUs go. Built once for a boot; only PCI functions come, move and go afterwards.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::legacy::firmware::FirmwarePorts;
use crate::legacy::serial::Serial;
use crate::legacy::{
    KEYBOARD_CONTROLLER_COMMAND, KEYBOARD_CONTROLLER_DATA, KEYBOARD_CONTROLLER_RESET, power, serial,
};
use crate::memory::{ECAM_BASE, ECAM_SIZE};
use crate::notices::{Ending, Notices};
use crate::pci::hotplug::{self, HotPlug};
use crate::pci::root::PciRoot;
use crate::snapshot::{Saved, StateError};

/// The last port of a COM port's eight.
const SERIAL_LAST: u16 = serial::BASE + serial::PORTS - 1;

/// The devices of a saved machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedDevices {
    pub serial: Saved,
    /// By PCI slot.
    functions: Vec<(u8, Saved)>,
    hotplug: Saved,
    /// Of machines with firmware.
    pub firmware: Option<Saved>,
}

impl SavedDevices {
    /// The PCI function of a slot.
    #[must_use]
    pub fn function(&self, slot: u8) -> Option<&Saved> {
        let found = self.functions.iter().find(|(taken, _)| *taken == slot);
        found.map(|(_, function)| function)
    }
}

pub struct Bus {
    serial: Arc<Serial>,
    pci: Arc<PciRoot>,
    hotplug: Arc<HotPlug>,
    /// Of machines with firmware.
    firmware: Option<FirmwarePorts>,
    notices: Arc<Notices>,
}

impl Bus {
    pub fn new(
        serial: Arc<Serial>,
        pci: Arc<PciRoot>,
        hotplug: Arc<HotPlug>,
        firmware: Option<FirmwarePorts>,
        notices: Arc<Notices>,
    ) -> Self {
        Self {
            serial,
            pci,
            hotplug,
            firmware,
            notices,
        }
    }

    /// Ports are bytes: a wider access reads as many ports in a row. Nobody there: all ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        if let Some(firmware) = &self.firmware
            && firmware.read(port, data)
        {
            return;
        }
        for (port, byte) in ports(port, data.len()).zip(data) {
            *byte = match port {
                serial::BASE..=SERIAL_LAST => self.serial.read((port - serial::BASE) as u8),
                // Output buffer empty, input buffer empty: ready for the reset command.
                KEYBOARD_CONTROLLER_COMMAND | KEYBOARD_CONTROLLER_DATA => 0,
                power::SLEEP_CONTROL_PORT..=power::RESET_PORT => 0,
                hotplug::FIRST_PORT..=hotplug::LAST_PORT => self.hotplug.read(port),
                _ => 0xff,
            };
        }
    }

    pub fn port_write(&self, port: u16, data: &[u8]) {
        if let Some(firmware) = &self.firmware
            && firmware.write(port, data)
        {
            return;
        }
        for (port, &byte) in ports(port, data.len()).zip(data) {
            match port {
                serial::BASE..=SERIAL_LAST => {
                    self.serial.write((port - serial::BASE) as u8, byte);
                }
                KEYBOARD_CONTROLLER_COMMAND if byte == KEYBOARD_CONTROLLER_RESET => {
                    self.notices.end(Ending::Reset);
                }
                power::SLEEP_CONTROL_PORT..=power::RESET_PORT => {
                    if let Some(ending) = power::write(port, byte) {
                        self.notices.end(ending);
                    }
                }
                hotplug::FIRST_PORT..=hotplug::LAST_PORT => self.hotplug.write(port, byte),
                _ => {}
            }
        }
    }

    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match ecam(address) {
            Some(offset) => self.pci.config_read(offset, data),
            None => self.pci.memory_read(address, data),
        }
    }

    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        match ecam(address) {
            Some(offset) => self.pci.config_write(offset, data),
            None => self.pci.memory_write(address, data),
        }
    }

    /// Stops all workers; no vCPU runs as long.
    pub fn pause(&self) {
        self.pci.pause();
    }

    /// What a snapshot keeps of the devices.
    ///
    /// # Errors
    /// A device cannot be saved.
    pub fn save(&self) -> Result<SavedDevices, StateError> {
        Ok(SavedDevices {
            serial: self.serial.save()?,
            functions: self.pci.save()?,
            hotplug: self.hotplug.save()?,
            firmware: self.firmware.as_ref().map(FirmwarePorts::save).transpose()?,
        })
    }

    /// Gives the PCI functions their states; serial port and firmware's devices were made with their own.
    ///
    /// # Errors
    /// There are other devices here.
    pub fn restore(&self, saved: &SavedDevices) -> Result<(), StateError> {
        self.pci.restore(&saved.functions)?;
        self.hotplug.restore(&saved.hotplug)
    }

    /// Lets all workers go on.
    pub fn resume(&self) {
        self.pci.resume();
    }

    /// Stops all devices; no vCPU runs any more.
    pub fn reset(&self) {
        self.pci.reset();
    }
}

fn ecam(address: u64) -> Option<u32> {
    let offset = address.checked_sub(ECAM_BASE)?;
    (offset < ECAM_SIZE).then_some(offset as u32)
}

/// The ports of one exit. KVM hands repeated string output over in one go: more bytes than the widest
/// access are one port, over and over.
fn ports(first: u16, bytes: usize) -> impl Iterator<Item = u16> {
    const WIDEST: usize = 4;
    (0..).map(move |n: u16| {
        if bytes > WIDEST {
            first
        } else {
            first.wrapping_add(n)
        }
    })
}
