//! Requests between the available and the used ring.

use std::io;
use std::time::Instant;

use super::request::Request;
use crate::metrics::Operation;
use crate::virtio::chain::Chain;

/// Bytes of the largest request that counts as one operation; a larger one counts as several.
/// <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-io-characteristics.html>
const OPERATION_LEN: u64 = 256 << 10;

/// A request that the device has taken and not yet given back.
pub(super) struct InFlight {
    pub(super) chain: Chain,
    pub(super) request: Request,
    /// Where its status byte is in the writable buffers.
    pub(super) status_at: u64,
    /// What the engine has of it.
    pub(super) parts: usize,
    pub(super) failure: Option<io::Error>,
    /// It is a write that is being made durable.
    pub(super) flushing: bool,
    pub(super) begun: Instant,
}

impl InFlight {
    /// Bytes that it reads or writes.
    pub(super) fn len(&self) -> u64 {
        match self.request {
            Request::Read { len, .. } | Request::Write { len, .. } => len,
            _ => 0,
        }
    }

    /// As the rate limit counts it.
    pub(super) fn operations(&self) -> u64 {
        self.len().div_ceil(OPERATION_LEN).max(1)
    }

    /// As metrics call it.
    pub(super) fn operation(&self) -> Option<Operation> {
        match self.request {
            Request::Read { .. } => Some(Operation::Read),
            Request::Write { .. } => Some(Operation::Write),
            Request::Flush => Some(Operation::Flush),
            Request::Discard(_) => Some(Operation::Discard),
            Request::WriteZeroes(_) => Some(Operation::WriteZeroes),
            Request::GetId => None,
        }
    }
}

/// Requests by number, and the chains of those that are gone: nothing is allocated in the long run.
#[derive(Default)]
pub(super) struct Requests {
    slots: Vec<Option<InFlight>>,
    free: Vec<usize>,
    chains: Vec<Chain>,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn chain(&mut self) -> Chain {
        self.chains.pop().unwrap_or_default()
    }

    pub(super) fn recycle(&mut self, chain: Chain) {
        self.chains.push(chain);
    }

    pub(super) fn insert(&mut self, request: InFlight) -> usize {
        match self.free.pop() {
            Some(number) => {
                self.slots[number] = Some(request);
                number
            }
            None => {
                self.slots.push(Some(request));
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn get(&mut self, number: usize) -> Option<&mut InFlight> {
        self.slots.get_mut(number)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<InFlight> {
        let request = self.slots.get_mut(number)?.take()?;
        self.free.push(number);
        Some(request)
    }
}
