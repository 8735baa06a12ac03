//! Where things are in a virtio function's one BAR, and the capabilities that say so. Virtio 1.2, section 4.1.4.

use crate::pci::config::ConfigSpace;
use crate::pci::msix::{self, Msix};

use super::super::DeviceType;
use super::common;

pub(super) const BAR: u8 = 0;
pub(super) const BAR_SIZE: u64 = 0x8000;

/// A region each page; the doorbells have one of their own, for KVM takes them away from `bar_write`.
pub(super) const PAGE: u64 = 0x1000;
const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PBA: u32 = 0x5000;

/// Bytes between two queues' doorbells.
pub(super) const NOTIFY_OFF_MULTIPLIER: u32 = 4;

/// Vectors and doorbells beyond it would not fit their page.
pub(super) const MAX_VECTORS: u16 = (PAGE / msix::ENTRY_SIZE) as u16;

const VENDOR: u16 = 0x1af4;
/// Plus the device type.
const MODERN_DEVICE: u16 = 0x1040;
/// Tells a driver that this is no transitional device.
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x40;

const CAPABILITY_VENDOR_SPECIFIC: u8 = 0x09;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// A region of the BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    Common,
    Isr,
    Device,
    Notify,
    MsixTable,
    MsixPba,
}

/// Finds the region of a BAR offset, and the offset in it.
pub(super) fn locate(offset: u64) -> Option<(Region, u64)> {
    let region = match u32::try_from(offset & !(PAGE - 1)).ok()? {
        COMMON => Region::Common,
        ISR => Region::Isr,
        DEVICE => Region::Device,
        NOTIFY => Region::Notify,
        MSIX_TABLE => Region::MsixTable,
        MSIX_PBA => Region::MsixPba,
        _ => return None,
    };
    Some((region, offset & (PAGE - 1)))
}

/// The BAR offset of a queue's doorbell.
pub(super) fn doorbell_offset(queue: u16) -> u64 {
    u64::from(NOTIFY) + u64::from(queue) * u64::from(NOTIFY_OFF_MULTIPLIER)
}

/// A function's configuration space, and where in it the capabilities that are more than constants start.
pub(super) struct Layout {
    pub(super) config: ConfigSpace,
    pub(super) msix: u16,
    pub(super) pci_cfg: u16,
}

pub(super) fn build(device: DeviceType, queues: u16, msix: &Msix) -> Layout {
    let device_id = MODERN_DEVICE + device as u16;
    let mut config = ConfigSpace::new(VENDOR, device_id, REVISION, class(device), VENDOR, SUBSYSTEM);
    config.add_bar64(BAR, BAR_SIZE);

    let msix_body = msix.capability(BAR, MSIX_TABLE, BAR, MSIX_PBA);
    let msix_at = config.add_capability(msix::CAPABILITY_ID, &msix_body);
    config.set_writable(
        msix_at + msix::CONTROL_OFFSET,
        &msix::CONTROL_WRITABLE.to_le_bytes(),
    );

    let mut add = |kind, offset, length, tail: &[u8]| {
        config.add_capability(
            CAPABILITY_VENDOR_SPECIFIC,
            &capability(kind, offset, length, tail),
        )
    };
    add(CFG_COMMON, COMMON, common::SIZE, &[]);
    add(CFG_ISR, ISR, 1, &[]);
    add(CFG_DEVICE, DEVICE, PAGE as u32, &[]);
    let doorbells = u32::from(queues) * NOTIFY_OFF_MULTIPLIER;
    add(
        CFG_NOTIFY,
        NOTIFY,
        doorbells,
        &NOTIFY_OFF_MULTIPLIER.to_le_bytes(),
    );
    let pci_cfg = add(CFG_PCI, 0, 0, &[0; 4]);
    // `bar`, `offset` and `length` of the window; its data are no memory and never get here.
    config.set_writable(pci_cfg + 4, &[0xff]);
    config.set_writable(pci_cfg + 8, &[0xff; 8]);
    Layout {
        config,
        msix: msix_at,
        pci_cfg,
    }
}

/// `struct virtio_pci_cap` behind id and next pointer.
fn capability(kind: u8, offset: u32, length: u32, tail: &[u8]) -> Vec<u8> {
    let whole = 16 + tail.len() as u8;
    let mut body = vec![whole, kind, BAR, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(tail);
    body
}

/// Base class, subclass and programming interface; drivers go by the device id.
fn class(device: DeviceType) -> u32 {
    match device {
        DeviceType::Net => 0x02_00_00,
        DeviceType::Block => 0x01_80_00,
        DeviceType::Entropy | DeviceType::Balloon | DeviceType::Vsock => 0xff_00_00,
    }
}
