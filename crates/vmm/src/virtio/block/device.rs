//! What the device is: features and configuration space; it starts and stops its workers.

use std::io;
use std::sync::Arc;

use hearth_block::{Disk, SECTOR};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
};

use super::request::SERIAL_LEN;
use super::worker::BlockHandler;
use crate::jail::Role;
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker, serve};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 256;
/// Data buffers per request: what a whole ring holds, less the buffers of header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// 4 KiB: the block of the host's file systems, as a power of two of sectors and in sectors.
const PHYSICAL_BLOCK_EXP: u8 = 3;
const MIN_IO_SIZE: u16 = 1 << PHYSICAL_BLOCK_EXP;

/// A disk to the guest.
pub struct Block {
    disk: Arc<dyn Disk>,
    serial: [u8; SERIAL_LEN],
    read_only: bool,
    worker: Option<Worker<Virtqueue>>,
}

impl Block {
    /// `serial` is cut to 20 bytes.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, serial: &str, read_only: bool) -> Self {
        let mut bytes = [0; SERIAL_LEN];
        for (byte, value) in bytes.iter_mut().zip(serial.bytes()) {
            *byte = value;
        }
        Self {
            disk,
            serial: bytes,
            read_only,
            worker: None,
        }
    }

    /// `struct virtio_blk_config` up to the topology.
    fn config(&self) -> [u8; 32] {
        let mut config = [0; 32];
        config[0..8].copy_from_slice(&(self.disk.size() / SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config[24] = PHYSICAL_BLOCK_EXP;
        config[26..28].copy_from_slice(&MIN_IO_SIZE.to_le_bytes());
        config
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only {
            feature(VIRTIO_BLK_F_RO)
        } else {
            0
        };
        feature(VIRTIO_BLK_F_FLUSH)
            | feature(VIRTIO_BLK_F_SEG_MAX)
            | feature(VIRTIO_BLK_F_BLK_SIZE)
            | feature(VIRTIO_BLK_F_TOPOLOGY)
            | read_only
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        // A driver that cannot flush expects each completed write to be durable (5.2.6.2).
        let write_through = !activation.has(VIRTIO_BLK_F_FLUSH);
        let Some(mut queue) = activation.take_queue(0) else {
            return Ok(());
        };
        let mut handler =
            BlockHandler::new(Arc::clone(&self.disk), self.serial, self.read_only, write_through);
        let stop = Stop::new()?;
        let doorbell = stop.waiter(&queue)?;
        let config_interrupt = activation.config_interrupt;
        self.worker = Some(Worker::spawn(Role::Block, "virtio-block", stop, move |stop| {
            serve(&mut queue, stop, &doorbell, &config_interrupt, &mut handler);
            queue
        })?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        self.worker.take().and_then(Worker::stop).into_iter().collect()
    }
}
