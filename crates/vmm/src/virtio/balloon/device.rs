//! What the device is: features, configuration space, and which queue is for what.

use std::io;
use std::sync::Arc;

use super::handle::Handle;
use super::pages::PageHandler;
use super::state;
use super::statistics::StatisticsQueue;
use super::worker::{BalloonWorker, PageQueue};
use crate::jail::Role;
use crate::metrics::{Device, Operation};
use crate::notices::Notices;
use crate::snapshot::{Saved, StateError};
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 128;

/// Feature bits (5.5.3).
pub(super) const F_STATS_VQ: u32 = 1;
pub(super) const F_DEFLATE_ON_OOM: u32 = 2;
pub(super) const F_REPORTING: u32 = 5;

/// `actual` in `struct virtio_balloon_config`: the field that a driver writes.
const ACTUAL: std::ops::Range<u64> = 4..8;

/// A memory balloon to the guest.
pub struct Balloon {
    handle: Arc<Handle>,
    notices: Arc<Notices>,
    metrics: Arc<Device>,
    worker: Option<Worker<Vec<Virtqueue>>>,
}

impl Balloon {
    /// A fresh balloon of the next boot, with nothing in it. Statistics that someone asked for are announced in
    /// `notices`.
    #[must_use]
    pub fn new(handle: Arc<Handle>, notices: Arc<Notices>) -> Self {
        handle.set_actual(0);
        Self {
            handle,
            notices,
            metrics: Arc::default(),
            worker: None,
        }
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<Device>) -> Self {
        Self { metrics, ..self }
    }

    fn make_worker(&self, activation: &mut Activation) -> BalloonWorker {
        let mut worker = BalloonWorker::new(Arc::clone(&self.handle));
        for index in 0..self.queue_sizes().len() {
            let (Some(purpose), Some(queue)) = (purpose(index, activation), activation.take_queue(index))
            else {
                continue;
            };
            match purpose {
                Purpose::Pages(operation) => {
                    let meter = self.metrics.queue(queue.index());
                    worker
                        .pages
                        .push(PageQueue::new(queue, PageHandler::new(operation, meter)));
                }
                Purpose::Statistics => worker.statistics = Some(StatisticsQueue::new(queue)),
            }
        }
        worker
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Pages(Operation),
    Statistics,
}

/// What queue `index` is for. The specification numbers inflate, deflate, statistics, free page hinting, reporting,
/// from 0 to 4; drivers, Linux first, number only those whose features they accepted. What they cannot
/// mean otherwise is reporting: hinting is not offered.
fn purpose(index: usize, activation: &Activation) -> Option<Purpose> {
    match index {
        0 => Some(Purpose::Pages(Operation::Inflate)),
        1 => Some(Purpose::Pages(Operation::Deflate)),
        2 if activation.has(F_STATS_VQ) => Some(Purpose::Statistics),
        _ if activation.has(F_REPORTING) => Some(Purpose::Pages(Operation::ReportFree)),
        _ => None,
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        let options = self.handle.options();
        let optional = |wanted: bool, bit| if wanted { feature(bit) } else { 0 };
        feature(F_STATS_VQ)
            | optional(options.deflate_on_oom, F_DEFLATE_ON_OOM)
            | optional(options.free_page_reporting, F_REPORTING)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 5]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let (target, actual) = self.handle.pages();
        let mut config = [0; 8];
        config[0..4].copy_from_slice(&target.to_le_bytes());
        config[4..8].copy_from_slice(&actual.to_le_bytes());
        read_config(&config, offset, data);
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        let (_, actual) = self.handle.pages();
        let mut actual = actual.to_le_bytes();
        for (at, &value) in (offset..).zip(data) {
            if ACTUAL.contains(&at)
                && let Some(byte) = actual.get_mut((at - ACTUAL.start) as usize)
            {
                *byte = value;
            }
        }
        self.handle.set_actual(u32::from_le_bytes(actual));
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let stop = Stop::new()?;
        let waiter = stop.waiter(&*self.handle)?;
        let worker = self.make_worker(&mut activation);
        worker.wake(&waiter)?;
        let config_interrupt = activation.config_interrupt;
        // Before the worker runs: it may have something to announce at once.
        self.handle
            .attach(config_interrupt.clone(), Arc::clone(&self.notices));
        let spawned = Worker::spawn(Role::Balloon, "virtio-balloon", stop, move |stop| {
            worker.run(stop, &waiter, &config_interrupt)
        });
        if spawned.is_err() {
            self.handle.detach();
        }
        self.worker = Some(spawned?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        self.handle.detach();
        self.worker.take().and_then(Worker::stop).unwrap_or_default()
    }

    fn save(&self) -> Result<Saved, StateError> {
        state::save(&self.handle)
    }

    fn restore(&mut self, state: &Saved) -> Result<(), StateError> {
        state::restore(&self.handle, state)
    }
}
