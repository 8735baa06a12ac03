//! The thread behind all of a balloon's queues.

use std::io;
use std::sync::Arc;

use super::handle::Handle;
use super::pages::PageHandler;
use super::statistics::StatisticsQueue;
use crate::virtio::chain::Chain;
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::{Batch, Stop, Waiter, serve_batch};

/// A queue of pages with whoever serves it.
pub(super) struct PageQueue {
    queue: Virtqueue,
    handler: PageHandler,
    chain: Chain,
}

impl PageQueue {
    pub(super) fn new(queue: Virtqueue, handler: PageHandler) -> Self {
        Self {
            queue,
            handler,
            chain: Chain::default(),
        }
    }

    /// Serves a ring's worth at most, so that no queue keeps the others waiting.
    fn serve(&mut self, stop: &Stop) -> Result<Batch, QueueError> {
        self.queue.disable_doorbell()?;
        match serve_batch(&mut self.queue, stop, &mut self.handler, &mut self.chain)? {
            Batch::Empty if self.queue.enable_doorbell()? => Ok(Batch::Full),
            batch => Ok(batch),
        }
    }
}

pub(super) struct BalloonWorker {
    handle: Arc<Handle>,
    pub(super) pages: Vec<PageQueue>,
    pub(super) statistics: Option<StatisticsQueue>,
}

impl BalloonWorker {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self {
            handle,
            pages: Vec::new(),
            statistics: None,
        }
    }

    /// Lets all doorbells wake `waiter`, which must not outlive this worker.
    pub(super) fn wake(&self, waiter: &Waiter) -> io::Result<()> {
        for pages in &self.pages {
            waiter.also_edges_of(&pages.queue)?;
        }
        match &self.statistics {
            Some(statistics) => waiter.also_edges_of(statistics.queue()),
            None => Ok(()),
        }
    }

    /// Serves until it is stopped or a queue is broken, and then says so to the driver.
    pub(super) fn run(
        mut self,
        stop: &Stop,
        waiter: &Waiter,
        config_interrupt: &ConfigInterrupt,
    ) -> Vec<Virtqueue> {
        if let Err(error) = self.serve(stop, waiter) {
            config_interrupt.needs_reset(&error);
        }
        let statistics = self.statistics.map(StatisticsQueue::into_queue);
        let pages = self.pages.into_iter().map(|pages| pages.queue);
        pages.chain(statistics).collect()
    }

    fn serve(&mut self, stop: &Stop, waiter: &Waiter) -> Result<(), QueueError> {
        loop {
            self.handle.silence();
            if let Some(statistics) = &mut self.statistics {
                statistics.serve(&self.handle)?;
            }
            let mut idle = true;
            for pages in &mut self.pages {
                match pages.serve(stop)? {
                    Batch::Full => idle = false,
                    Batch::Empty => {}
                    Batch::Last => return Ok(()),
                }
            }
            if idle && !waiter.wait() {
                return Ok(());
            }
        }
    }
}
