//! What a device's workers count: operations by kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cells::{Counter, Histogram, nanoseconds};
use super::lock;
use super::report::{DeviceReport, LatencyReport, OperationReport};

/// What a driver asks a device to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A disk's data to the guest; random bytes to the guest.
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    /// To the guest: a packet.
    Receive,
    /// From the guest: a packet.
    Transmit,
    /// The guest gives pages to the host.
    Inflate,
    /// The guest takes pages back.
    Deflate,
    /// The guest tells of pages that it does not use just now.
    ReportFree,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
        Self::Receive,
        Self::Transmit,
        Self::Inflate,
        Self::Deflate,
        Self::ReportFree,
    ];
}

/// A device's numbers. It has a block of cells for each queue; a [`Report`](super::Report) has their sums.
#[derive(Default)]
pub struct Device {
    queues: Mutex<BTreeMap<u16, Arc<QueueCells>>>,
}

#[derive(Default)]
#[repr(align(128))] // The processor fetches cache lines by pairs.
struct QueueCells([OperationCells; Operation::ALL.len()]);

#[derive(Default)]
struct OperationCells {
    operations: Counter,
    bytes: Counter,
    errors: Counter,
    latency: Histogram,
    throttled: Counter,
    throttled_ns: Counter,
}

impl Device {
    /// The pen of queue `index`'s worker. One worker has it at a time: of two, counts would get lost.
    pub fn queue(&self, index: u16) -> QueueMeter {
        let cells = Arc::clone(lock(&self.queues).entry(index).or_default());
        QueueMeter { cells }
    }

    pub(super) fn report(&self, kind: &str, id: &str) -> DeviceReport {
        let mut operations = BTreeMap::new();
        for queue in lock(&self.queues).values() {
            for (operation, cells) in Operation::ALL.into_iter().zip(&queue.0) {
                if cells.operations.get() + cells.throttled.get() > 0 {
                    cells.add_to(operations.entry(operation).or_default());
                }
            }
        }
        DeviceReport {
            kind: kind.to_owned(),
            id: id.to_owned(),
            operations,
        }
    }
}

impl OperationCells {
    fn add_to(&self, report: &mut OperationReport) {
        report.operations += self.operations.get();
        report.bytes += self.bytes.get();
        report.errors += self.errors.get();
        report.throttled += self.throttled.get();
        report.throttled_ns += self.throttled_ns.get();
        let LatencyReport { sum_ns, buckets } = &mut report.latency;
        *sum_ns += self.latency.sum_ns();
        for (below_ns, count) in self.latency.buckets().filter(|&(_, count)| count > 0) {
            match buckets.binary_search_by_key(&below_ns, |bucket| bucket.0) {
                Ok(at) => buckets[at].1 += count,
                Err(at) => buckets.insert(at, (below_ns, count)),
            }
        }
    }
}

/// A worker counts its operations with this.
pub struct QueueMeter {
    cells: Arc<QueueCells>,
}

/// The time since `begin`, which becomes now: what follows at once is measured with the same look at the clock.
pub fn lap(begin: &mut Instant) -> Duration {
    let now = Instant::now();
    now.saturating_duration_since(std::mem::replace(begin, now))
}

impl QueueMeter {
    /// An operation ended well: it moved `bytes` and took from when the worker found it to when it was
    /// complete.
    pub fn completed(&mut self, operation: Operation, bytes: u64, took: Duration) {
        let cells = self.cells(operation);
        cells.operations.add(1);
        cells.bytes.add(bytes);
        cells.latency.add(took);
    }

    /// An operation ended with an error that the driver was told.
    pub fn failed(&mut self, operation: Operation, took: Duration) {
        let cells = self.cells(operation);
        cells.operations.add(1);
        cells.errors.add(1);
        cells.latency.add(took);
    }

    /// A rate limit kept an operation waiting this long.
    pub fn throttled(&mut self, operation: Operation, waited: Duration) {
        let cells = self.cells(operation);
        cells.throttled.add(1);
        cells.throttled_ns.add(nanoseconds(waited));
    }

    fn cells(&self, operation: Operation) -> &OperationCells {
        // In range by the array's length; the compiler sees it.
        &self.cells.0[operation as usize]
    }
}
