//! What the device is: one feature, the guest's context id, three queues for one worker.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::mux::Mux;
use super::worker::{Queues, Rest, VsockWorker};
use crate::jail::Role;
use crate::metrics;
use crate::snapshot::{Saved, StateError};
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 128;
const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;

/// `VIRTIO_VSOCK_F_STREAM`.
const F_STREAM: u32 = 0;

/// Stream sockets between the guest and programs of the host.
pub struct Vsock {
    guest_cid: u64,
    metrics: Arc<metrics::Device>,
    /// With the worker, while there is one.
    mux: Option<Mux>,
    transport_reset: bool,
    worker: Option<Worker<Rest>>,
}

impl Vsock {
    /// Host programs connect to `listener`; the guest's connection to port `P` of the host goes to the socket
    /// `<prefix>_<P>`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(guest_cid: u32, listener: UnixListener, prefix: PathBuf) -> io::Result<Self> {
        let guest_cid = guest_cid.into();
        Ok(Self {
            guest_cid,
            metrics: Arc::default(),
            mux: Some(Mux::new(guest_cid, listener, prefix)?),
            transport_reset: false,
            worker: None,
        })
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<metrics::Device>) -> Self {
        Self { metrics, ..self }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }

    fn features(&self) -> u64 {
        feature(F_STREAM)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn reset(&mut self) {
        self.transport_reset = false;
        if let Some(mux) = &mut self.mux {
            mux.clear();
        }
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let (Some(rx), Some(tx)) = (activation.take_queue(RX), activation.take_queue(TX)) else {
            return Ok(());
        };
        let event = activation.take_queue(EVENT);
        let gone = || io::Error::other("an earlier worker could not be started");
        let rest = Rest {
            queues: Queues { rx, tx, event },
            mux: self.mux.take().ok_or_else(gone)?,
            transport_reset: self.transport_reset,
        };
        let stop = Stop::new()?;
        let worker = VsockWorker::new(rest, &self.metrics, &stop)?;
        let config_interrupt = activation.config_interrupt;
        self.worker = Some(Worker::spawn(Role::Vsock, "virtio-vsock", stop, move |stop| {
            worker.run(stop, &config_interrupt)
        })?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        let Some(rest) = self.worker.take().and_then(Worker::stop) else {
            return Vec::new();
        };
        self.mux = Some(rest.mux);
        self.transport_reset = rest.transport_reset;
        rest.queues.into_vec()
    }

    /// Connections do not outlive a snapshot: their other ends are elsewhere. The guest will be told (5.10.6.7).
    fn restore(&mut self, _state: &Saved) -> Result<(), StateError> {
        self.transport_reset = true;
        Ok(())
    }
}
