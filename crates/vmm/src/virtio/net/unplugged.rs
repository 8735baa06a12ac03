//! A restored driver's interface that is not there any more.
//!
//! A driver reads an interface's address, MTU and number of queues once, when it probes the device, and there is no
//! interrupt that would make it read them again. A clone whose NIC differs in any of them (or can do less than the
//! driver has accepted) therefore finds this in the NIC's slot: all as the driver left it, but with the cable out, so
//! that nothing leaves under an address that is another machine's. The guest is asked to let it go, and gets the
//! clone's NIC in the same slot when it has. That is hot-plug, which every guest's system deals with by itself:
//! the interface comes back under its name, and is configured anew.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};

use super::control;
use super::device::queue_sizes;
use super::pairs::Pairs;
use super::state::{ConfigSpace, State, pairs, without_link};
use crate::snapshot::{Saved, StateError};
use crate::virtio::pci::SavedDevice;
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::Worker;
use crate::virtio::{Activation, DeviceType, VirtioDevice, read_config};

/// An interface to the guest, and to nobody.
pub struct Unplugged {
    state: State,
    pairs: Arc<Pairs>,
    queue_sizes: Vec<u16>,
    /// The control queue is served: a driver may wait for its answers.
    control: Option<Worker<Virtqueue>>,
}

impl Unplugged {
    /// The saved interface, if its driver cannot go on with `here` in its place.
    ///
    /// # Errors
    /// `saved` is no interface's state.
    pub fn instead_of(here: &dyn VirtioDevice, saved: &SavedDevice) -> Result<Option<Self>, StateError> {
        let state = State::read(&saved.state)?;
        let mut config = ConfigSpace::default();
        here.config_read(0, &mut config);
        let news = match saved.accepted {
            Some(features) => config != state.config || features & !here.features() != 0,
            // Nobody has read it yet. The queues are another matter: their number is in the function's registers.
            None => pairs(&config) != state.pairs(),
        };
        Ok(news.then(|| Self::new(state)))
    }

    fn new(state: State) -> Self {
        Self {
            pairs: Arc::new(Pairs::new(Vec::new())),
            queue_sizes: queue_sizes(state.pairs()),
            state,
            control: None,
        }
    }
}

impl VirtioDevice for Unplugged {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        self.state.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&without_link(self.state.config), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        if activation.has(VIRTIO_NET_F_CTRL_VQ) {
            let pairs = match activation.has(VIRTIO_NET_F_MQ) {
                true => self.state.pairs(),
                false => 1,
            };
            self.control = control::start(Arc::clone(&self.pairs), pairs, &mut activation)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        self.control.take().and_then(Worker::stop).into_iter().collect()
    }

    fn save(&self) -> Result<Saved, StateError> {
        self.state.save()
    }

    /// It was made of this state.
    fn restore(&mut self, _: &Saved) -> Result<(), StateError> {
        Ok(())
    }
}
