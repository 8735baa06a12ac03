//! What the device is: features and configuration space; it starts and stops its workers.

use std::io;
use std::sync::Arc;

use hearth_block::engine::{self, Pool};
use hearth_block::{Disk, SECTOR};
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::request::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_ZEROES_SECTORS, SERIAL_LEN, SIZE_MAX};
use super::worker::{BlockWorker, Served};
use crate::jail::{self, Role};
use crate::limits::{Limiter, RateLimit, Throttle};
use crate::metrics;
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 256;
/// Data buffers per request: what a whole ring holds, less the buffers of header and status.
pub(super) const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Queues of one disk: each has a thread.
pub const MAX_QUEUES: u16 = 4;
/// 4 KiB: the block of the host's file systems, as a power of two of sectors and in sectors.
const PHYSICAL_BLOCK_EXP: u8 = 3;
const MIN_IO_SIZE: u16 = 1 << PHYSICAL_BLOCK_EXP;
/// Bytes of `struct virtio_blk_config` up to the limits of zeroing.
const CONFIG_LEN: usize = 60;
/// Threads of a disk for what an `io_uring` does not do, and for everything.
const HELPERS: usize = 2;
const POOL: usize = 8;

/// Where what the guest writes is until it flushes. A flush makes it durable in either case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// In the disk: I/O goes past the host's page cache (`O_DIRECT`), where the backing allows it.
    #[default]
    None,
    /// In the host's page cache, whose memory is nobody's in particular, and which delays others' writes when it
    /// is full. For images that many guests read, and disks that nobody misses.
    Writeback,
}

/// A disk to the guest.
pub struct Block {
    disk: Arc<dyn Disk>,
    cache: Cache,
    limiter: Arc<Limiter>,
    serial: [u8; SERIAL_LEN],
    read_only: bool,
    queue_sizes: Vec<u16>,
    /// Otherwise threads do all I/O.
    uring: bool,
    metrics: Arc<metrics::Device>,
    workers: Vec<Worker<Virtqueue>>,
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
            cache: Cache::default(),
            limiter: Limiter::new(&RateLimit::default()),
            serial: bytes,
            read_only,
            queue_sizes: vec![QUEUE_SIZE],
            uring: engine::is_uring_allowed(),
            metrics: Arc::default(),
            workers: Vec::new(),
        }
    }

    /// With `queues` queues, but at least one and at most [`MAX_QUEUES`].
    #[must_use]
    pub fn queues(self, queues: u16) -> Self {
        Self {
            queue_sizes: vec![QUEUE_SIZE; queues.clamp(1, MAX_QUEUES).into()],
            ..self
        }
    }

    /// With the page cache between, or not.
    #[must_use]
    pub fn cached(self, cache: Cache) -> Self {
        Self { cache, ..self }
    }

    /// With threads for all I/O, as where the kernel allows no `io_uring`.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn on_threads(self) -> Self {
        Self { uring: false, ..self }
    }

    /// Moves as much as `limiter` lets pass: requests, and the bytes of reads and writes.
    #[must_use]
    pub fn limited_by(self, limiter: Arc<Limiter>) -> Self {
        Self { limiter, ..self }
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<metrics::Device>) -> Self {
        Self { metrics, ..self }
    }

    fn can_discard(&self) -> bool {
        !self.read_only && self.disk.can_discard()
    }

    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.disk.size() / SECTOR).to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(24, &[PHYSICAL_BLOCK_EXP]);
        put(26, &MIN_IO_SIZE.to_le_bytes());
        put(34, &(self.queue_sizes.len() as u16).to_le_bytes());
        if self.can_discard() {
            put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
            put(40, &MAX_RANGES.to_le_bytes());
            put(44, &u32::from(MIN_IO_SIZE).to_le_bytes());
        }
        if !self.read_only {
            put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
            put(52, &MAX_RANGES.to_le_bytes());
            put(56, &[u8::from(self.can_discard())]);
        }
        config
    }

    fn start(&mut self, mut activation: Activation) -> io::Result<()> {
        // Between boots the host reads kernels from it, which profits from the page cache.
        self.disk.set_direct(self.cache == Cache::None);
        let threads = if self.uring { HELPERS } else { POOL };
        let pool = Pool::new(Arc::clone(&self.disk), threads, &|builder, run| {
            jail::spawn(Role::Block, builder, run)
        })?;
        for index in 0..self.queue_sizes.len() {
            let Some(queue) = activation.take_queue(index) else {
                continue;
            };
            let served = Served {
                disk: Arc::clone(&self.disk),
                pool: Arc::clone(&pool),
                uring: self.uring,
                serial: self.serial,
                read_only: self.read_only,
                // A driver that cannot flush expects each completed write to be durable (5.2.6.2).
                write_through: !activation.has(VIRTIO_BLK_F_FLUSH),
                discards: activation.has(VIRTIO_BLK_F_DISCARD),
                zeroes: activation.has(VIRTIO_BLK_F_WRITE_ZEROES),
                throttle: Throttle::new(Arc::clone(&self.limiter))?,
                meter: self.metrics.queue(index as u16),
            };
            let config_interrupt = activation.config_interrupt.clone();
            let run = move |stop: &Stop| BlockWorker::run(queue, served, stop, &config_interrupt);
            let name = format!("virtio-block{index}");
            self.workers
                .push(Worker::spawn(Role::Block, &name, Stop::new()?, run)?);
        }
        Ok(())
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let only_if = |condition: bool, bit| if condition { feature(bit) } else { 0 };
        feature(VIRTIO_BLK_F_FLUSH)
            | feature(VIRTIO_BLK_F_SIZE_MAX)
            | feature(VIRTIO_BLK_F_SEG_MAX)
            | feature(VIRTIO_BLK_F_BLK_SIZE)
            | feature(VIRTIO_BLK_F_TOPOLOGY)
            | only_if(self.read_only, VIRTIO_BLK_F_RO)
            | only_if(self.queue_sizes.len() > 1, VIRTIO_BLK_F_MQ)
            | only_if(self.can_discard(), VIRTIO_BLK_F_DISCARD)
            | only_if(!self.read_only, VIRTIO_BLK_F_WRITE_ZEROES)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let started = self.start(activation);
        if started.is_err() {
            self.stop();
        }
        started
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        let queues = self.workers.drain(..).filter_map(Worker::stop).collect();
        self.disk.set_direct(false);
        queues
    }
}
