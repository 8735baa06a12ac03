//! The statistics queue, which works in reverse: the driver leaves a buffer with numbers in it, and when the
//! device gives it back the driver fills it with fresh ones. Virtio 1.2, section 5.5.6.3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::handle::Handle;
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::queue::{QueueError, Virtqueue};

/// What a guest says about its memory, by its tag's number. A driver sends what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    SwapInBytes,
    SwapOutBytes,
    MajorFaults,
    MinorFaults,
    /// Not used for anything.
    FreeBytes,
    /// What the guest has, its balloon left out unless it deflates on OOM.
    TotalBytes,
    /// What new programs could have without swapping.
    AvailableBytes,
    DiskCacheBytes,
    HugePageAllocations,
    HugePageFailures,
    OomKills,
    AllocationStalls,
    AsyncScannedBytes,
    DirectScannedBytes,
    AsyncReclaimedBytes,
    DirectReclaimedBytes,
}

impl Statistic {
    const BY_TAG: [Self; 16] = [
        Self::SwapInBytes,
        Self::SwapOutBytes,
        Self::MajorFaults,
        Self::MinorFaults,
        Self::FreeBytes,
        Self::TotalBytes,
        Self::AvailableBytes,
        Self::DiskCacheBytes,
        Self::HugePageAllocations,
        Self::HugePageFailures,
        Self::OomKills,
        Self::AllocationStalls,
        Self::AsyncScannedBytes,
        Self::DirectScannedBytes,
        Self::AsyncReclaimedBytes,
        Self::DirectReclaimedBytes,
    ];
}

pub(super) type Statistics = BTreeMap<Statistic, u64>;

/// `struct virtio_balloon_stat`: a tag of 16 bits, a value of 64, packed.
const ENTRY_LEN: usize = 10;
/// More entries than there are tags, for drivers that know some more; the rest is not looked at.
const MAX_ENTRIES: usize = 64;
const MAX_DESCRIPTORS: usize = 16;

fn parse(chain: &Chain, memory: &QueueMemory) -> Result<Statistics, Malformed> {
    if !chain.writable.is_empty() {
        return Err(Malformed::Direction);
    }
    if chain.readable.is_empty() {
        return Err(Malformed::TooShort);
    }
    let mut bytes = [0; ENTRY_LEN * MAX_ENTRIES];
    let len = usize::try_from(chain.readable.len()).map_or(bytes.len(), |len| len.min(bytes.len()));
    let bytes = &mut bytes[..len];
    chain.readable.read(memory, 0, bytes)?;
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    Ok(entries
        .iter()
        .filter_map(|[tag @ .., v0, v1, v2, v3, v4, v5, v6, v7]| {
            let tag = usize::from(u16::from_le_bytes(*tag));
            let value = u64::from_le_bytes([*v0, *v1, *v2, *v3, *v4, *v5, *v6, *v7]);
            Some((*Statistic::BY_TAG.get(tag)?, value))
        })
        .collect())
}

/// The queue, and the buffer of it that the device holds.
pub(super) struct StatisticsQueue {
    queue: Virtqueue,
    chain: Chain,
    /// `chain` was taken from the queue and not given back.
    holds: bool,
}

impl StatisticsQueue {
    pub(super) fn new(queue: Virtqueue) -> Self {
        Self {
            queue,
            chain: Chain::default(),
            holds: false,
        }
    }

    pub(super) fn queue(&self) -> &Virtqueue {
        &self.queue
    }

    /// Takes numbers that have come, and gives their buffer back if someone wants newer ones. Whatever else the
    /// driver puts into the queue stays there meanwhile.
    pub(super) fn serve(&mut self, handle: &Handle) -> Result<(), QueueError> {
        loop {
            if !self.holds && !self.take(handle)? {
                return Ok(());
            }
            if !handle.take_wish() {
                return Ok(());
            }
            self.holds = false;
            self.queue.complete(&self.chain, 0)?;
            self.queue.notify()?;
        }
    }

    /// False: there is nothing yet, and the doorbell will tell.
    fn take(&mut self, handle: &Handle) -> Result<bool, QueueError> {
        while !self.queue.pop(&mut self.chain, MAX_DESCRIPTORS)? {
            if !self.queue.enable_doorbell()? {
                return Ok(false);
            }
        }
        self.queue.disable_doorbell()?;
        self.holds = true;
        let parsed = parse(&self.chain, self.queue.memory());
        handle.store(parsed.map_err(|source| self.queue.malformed(source))?);
        Ok(true)
    }

    /// The queue as if the buffer that the device holds had not been taken.
    pub(super) fn into_queue(mut self) -> Virtqueue {
        if self.holds {
            self.queue.undo_pop();
        }
        self.queue
    }
}
