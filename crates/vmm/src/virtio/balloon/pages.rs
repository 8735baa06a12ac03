//! Pages that the guest gives away or takes back. Virtio 1.2, sections 5.5.6.1, 5.5.6.2 and 5.5.6.7.
//!
//! Any page number may come: outside of RAM, twice, of a page that the guest still uses. Numbers outside are ignored
//! (and counted as an error), and to release a page hurts nobody but the guest: it reads something else there.

use std::io;
use std::time::Instant;

use vm_memory::GuestAddress;

use crate::memory::refuse_huge_pages;
use crate::memory::release::{PAGE, release};
use crate::metrics::{Operation, QueueMeter};
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::worker::Handler;

/// Bytes of page numbers in one request at most: 64 MiB of pages. Linux sends 1 KiB, others up to a page.
const MAX_REQUEST_LEN: usize = 64 << 10;
const PFN_LEN: usize = 4;
/// Failures that are logged, per activation.
const LOGGED_FAILURES: u32 = 16;

/// Serves the inflate, the deflate or a reporting queue.
pub(super) struct PageHandler {
    operation: Operation,
    meter: QueueMeter,
    bytes: Vec<u8>,
    pfns: Vec<u32>,
    failures: u32,
    /// Pages were taken from the guest.
    took: bool,
}

impl PageHandler {
    pub(super) fn new(operation: Operation, meter: QueueMeter) -> Self {
        Self {
            operation,
            meter,
            bytes: Vec::new(),
            pfns: Vec::new(),
            failures: 0,
            took: false,
        }
    }

    /// The request's page numbers, ascending.
    fn read_pfns(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<(), Malformed> {
        if !chain.writable.is_empty() {
            return Err(Malformed::Direction);
        }
        let len = usize::try_from(chain.readable.len()).unwrap_or(usize::MAX);
        if len < PFN_LEN {
            return Err(Malformed::TooShort);
        }
        if len > MAX_REQUEST_LEN {
            return Err(Malformed::TooLarge(MAX_REQUEST_LEN));
        }
        self.bytes.resize(len, 0);
        chain.readable.read(memory, 0, &mut self.bytes)?;
        let (numbers, _) = self.bytes.as_chunks::<PFN_LEN>();
        self.pfns.clear();
        self.pfns
            .extend(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)));
        self.pfns.sort_unstable();
        self.pfns.dedup();
        Ok(())
    }

    fn inflate(&mut self, memory: &QueueMemory) -> Outcome {
        if !std::mem::replace(&mut self.took, true) {
            // The host would sooner or later put a huge page where a single page of it is in use, and so give all
            // back that the balloon has around it.
            refuse_huge_pages(memory.ram());
        }
        let mut outcome = Outcome::default();
        for run in self.pfns.chunk_by(|a, b| b - a == 1) {
            let first = run.first().copied().unwrap_or(0);
            let start = GuestAddress(u64::from(first) * PAGE);
            outcome.add(
                release(memory.ram(), start, run.len() as u64 * PAGE),
                run.len() as u64 * PAGE,
            );
        }
        outcome
    }

    /// Nothing is to be done for a page that is taken back: the host maps another when it is touched.
    fn deflate(&self) -> Outcome {
        Outcome {
            bytes: self.pfns.len() as u64 * PAGE,
            ..Outcome::default()
        }
    }

    /// Each buffer is a range of free pages.
    fn report_free(chain: &Chain, memory: &QueueMemory) -> Result<Outcome, Malformed> {
        if !chain.readable.is_empty() {
            return Err(Malformed::Direction);
        }
        if chain.writable.is_empty() {
            return Err(Malformed::TooShort);
        }
        let mut outcome = Outcome::default();
        for (start, len) in chain.writable.ranges() {
            outcome.add(release(memory.ram(), start, len), len);
        }
        Ok(outcome)
    }
}

impl Handler for PageHandler {
    /// Linux reports 32 ranges at a time.
    const MAX_DESCRIPTORS: usize = super::device::QUEUE_SIZE as usize;

    fn handle(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<u32, Malformed> {
        let begin = Instant::now();
        let outcome = match self.operation {
            Operation::ReportFree => Self::report_free(chain, memory)?,
            operation => {
                self.read_pfns(chain, memory)?;
                if operation == Operation::Inflate {
                    self.inflate(memory)
                } else {
                    self.deflate()
                }
            }
        };
        match outcome.problem {
            None => self
                .meter
                .completed(self.operation, outcome.bytes, begin.elapsed()),
            Some(problem) => {
                self.meter.failed(self.operation, begin.elapsed());
                self.failures = self.failures.saturating_add(1);
                if self.failures <= LOGGED_FAILURES {
                    tracing::warn!(operation = ?self.operation, problem, "pages that cannot be released");
                }
            }
        }
        Ok(0)
    }
}

/// What became of a request. The driver is told nothing of a problem: the device has no words for it.
#[derive(Default)]
struct Outcome {
    bytes: u64,
    problem: Option<String>,
}

impl Outcome {
    fn add(&mut self, released: io::Result<u64>, asked: u64) {
        match released {
            Ok(bytes) => {
                self.bytes += bytes;
                if bytes < asked {
                    self.problem = Some("they are not whole pages of RAM".to_owned());
                }
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }
}
