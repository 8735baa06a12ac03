//! What the device is: features and configuration space; it starts and stops its workers.

use std::fs::File;
use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use super::rx::Receiver;
use super::tap;
use super::tx::TxHandler;
use crate::jail::Role;
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker, serve};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 256;
const RX: usize = 0;
const TX: usize = 1;

/// A network interface to the guest.
pub struct Net {
    tap: Arc<File>,
    mac: [u8; 6],
    mtu: u16,
    workers: Vec<Worker<Virtqueue>>,
}

impl Net {
    /// `tap` was opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`. Bytes of IP packet: `mtu`.
    ///
    /// # Errors
    /// `tap` is no such TAP.
    pub fn new(tap: File, mac: [u8; 6], mtu: u16) -> io::Result<Self> {
        tap::configure(&tap)?;
        Ok(Self::on(tap, mac, mtu))
    }

    /// On anything that moves a packet behind its header per call, and is non-blocking.
    pub(super) fn on(tap: File, mac: [u8; 6], mtu: u16) -> Self {
        Self {
            tap: Arc::new(tap),
            mac,
            mtu,
            workers: Vec::new(),
        }
    }

    /// `struct virtio_net_config` up to the MTU.
    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        config[0..6].copy_from_slice(&self.mac);
        config[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        config[8..10].copy_from_slice(&1u16.to_le_bytes());
        config[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        config
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        feature(VIRTIO_NET_F_MAC) | feature(VIRTIO_NET_F_MTU) | feature(VIRTIO_NET_F_STATUS)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let mut workers = Vec::new();
        if let Some(queue) = activation.take_queue(RX) {
            let stop = Stop::new()?;
            let config_interrupt = activation.config_interrupt.clone();
            let receiver = Receiver::new(Arc::clone(&self.tap), queue, &stop)?;
            workers.push(Worker::spawn(Role::Net, "virtio-net-rx", stop, move |stop| {
                receiver.run(stop, &config_interrupt)
            })?);
        }
        if let Some(mut queue) = activation.take_queue(TX) {
            let stop = Stop::new()?;
            let doorbell = stop.waiter(&queue)?;
            let config_interrupt = activation.config_interrupt.clone();
            let mut handler = TxHandler::new(Arc::clone(&self.tap), self.mtu);
            workers.push(Worker::spawn(Role::Net, "virtio-net-tx", stop, move |stop| {
                serve(&mut queue, stop, &doorbell, &config_interrupt, &mut handler);
                queue
            })?);
        }
        self.workers = workers;
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        self.workers.drain(..).filter_map(Worker::stop).collect()
    }
}
