//! The control queue: how many of the queue pairs the driver uses. Virtio 1.2, section 5.1.6.5.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::pairs::Pairs;
use crate::jail::Role;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Handler, Stop, Worker, serve};
use crate::virtio::{Activation, QueueMemory};

/// Class and command, before the command's data.
const COMMAND_LEN: u64 = 2;

/// Starts the control queue's worker, if the driver enabled the queue. It is the one behind all `pairs` that the
/// driver knows of (5.1.2).
pub(super) fn start(
    all: Arc<Pairs>,
    pairs: u16,
    activation: &mut Activation,
) -> io::Result<Option<Worker<Virtqueue>>> {
    let Some(mut queue) = activation.take_queue(2 * usize::from(pairs)) else {
        return Ok(None);
    };
    let stop = Stop::new()?;
    let doorbell = stop.waiter(&queue)?;
    let config_interrupt = activation.config_interrupt.clone();
    let mut handler = ControlHandler {
        pairs: all,
        limit: pairs,
    };
    let run = move |stop: &Stop| {
        serve(&mut queue, stop, &doorbell, &config_interrupt, &mut handler);
        queue
    };
    Worker::spawn(Role::Net, "net-control", stop, run).map(Some)
}

struct ControlHandler {
    pairs: Arc<Pairs>,
    /// Pairs that the driver may use.
    limit: u16,
}

impl ControlHandler {
    fn execute(&self, chain: &Chain, memory: &QueueMemory) -> Result<bool, Malformed> {
        let mut command = [0; COMMAND_LEN as usize];
        chain.readable.read(memory, 0, &mut command)?;
        if command.map(u32::from) != [VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET] {
            return Ok(false);
        }
        let mut pairs = [0; 2];
        chain.readable.read(memory, COMMAND_LEN, &mut pairs)?;
        let pairs = u16::from_le_bytes(pairs);
        Ok((1..=self.limit).contains(&pairs) && self.pairs.set(pairs).is_ok())
    }
}

impl Handler for ControlHandler {
    const MAX_DESCRIPTORS: usize = super::device::QUEUE_SIZE as usize;

    fn handle(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<u32, Malformed> {
        if chain.writable.is_empty() {
            return Err(Malformed::TooShort);
        }
        let ack = if self.execute(chain, memory)? {
            VIRTIO_NET_OK
        } else {
            VIRTIO_NET_ERR
        };
        chain.writable.write(memory, 0, &[ack as u8])?;
        Ok(1)
    }
}
