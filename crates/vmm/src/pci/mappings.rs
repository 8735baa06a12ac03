//! Which addresses on the bus belong to which function's BAR.
//!
//! The root forwards its windows only: a BAR that the guest has put elsewhere, over RAM or at the end of all
//! addresses, answers nowhere. Of BARs that lie over each other the first one answers, and the next when it has gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bar, Doorbell, IoEvents, PciFunction};

/// The BARs that are decoded, by address; [`IoEvents`] has their doorbells.
pub(super) struct Mappings {
    events: Arc<dyn IoEvents>,
    /// (start, bytes) of each.
    windows: [(u64, u64); 2],
    by_address: BTreeMap<u64, Mapping>,
}

struct Mapping {
    function: Arc<dyn PciFunction>,
    bar: Bar,
    doorbells: Vec<Doorbell>,
}

impl Mappings {
    pub(super) fn new(events: Arc<dyn IoEvents>, windows: [(u64, u64); 2]) -> Self {
        Self {
            events,
            windows,
            by_address: BTreeMap::new(),
        }
    }

    /// Whose BAR `len` bytes at `address` are in, which one, and where in it.
    pub(super) fn locate(&self, address: u64, len: usize) -> Option<(Arc<dyn PciFunction>, u8, u64)> {
        let (start, mapping) = self.by_address.range(..=address).next_back()?;
        let offset = address - start;
        (offset + len as u64 <= mapping.bar.size).then_some(())?;
        Some((Arc::clone(&mapping.function), mapping.bar.index, offset))
    }

    /// Brings everything in step with what all the functions decode now.
    pub(super) fn update(&mut self, functions: &[Arc<dyn PciFunction>]) {
        let wanted: Vec<(&Arc<dyn PciFunction>, Bar)> = functions
            .iter()
            .flat_map(|function| function.bars().into_iter().map(move |bar| (function, bar)))
            .filter(|(_, bar)| self.forwards(bar))
            .collect();
        let events = &self.events;
        self.by_address.retain(|_, mapping| {
            let keep = wanted
                .iter()
                .any(|(function, bar)| *bar == mapping.bar && Arc::ptr_eq(function, &mapping.function));
            if !keep {
                for bell in &mapping.doorbells {
                    unregister(events.as_ref(), &mapping.bar, bell);
                }
            }
            keep
        });
        for (function, bar) in wanted {
            // Taken by itself, from before, or by another.
            if self.is_free(&bar) {
                self.map(function, bar);
            }
        }
    }

    fn map(&mut self, function: &Arc<dyn PciFunction>, bar: Bar) {
        let mut doorbells = function.doorbells();
        doorbells.retain(|bell| bell.bar == bar.index);
        for bell in &doorbells {
            register(self.events.as_ref(), &bar, bell);
        }
        let mapping = Mapping {
            function: Arc::clone(function),
            bar,
            doorbells,
        };
        self.by_address.insert(bar.address, mapping);
    }

    /// Whether a BAR is in a window as a whole; then nothing can be behind the end of all addresses.
    fn forwards(&self, bar: &Bar) -> bool {
        self.windows.iter().any(|&(start, len)| {
            let offset = bar.address.checked_sub(start);
            offset.is_some_and(|offset| offset < len && bar.size <= len - offset)
        })
    }

    fn is_free(&self, bar: &Bar) -> bool {
        let before = self.by_address.range(..bar.address + bar.size).next_back();
        before.is_none_or(|(start, there)| start + there.bar.size <= bar.address)
    }
}

fn register(events: &dyn IoEvents, bar: &Bar, bell: &Doorbell) {
    let address = bar.address + bell.offset;
    if let Err(error) = events.register(address, &bell.event) {
        // The notification then arrives by bar_write: slower, not lost.
        tracing::warn!(%error, address, "doorbell not registered");
    }
}

fn unregister(events: &dyn IoEvents, bar: &Bar, bell: &Doorbell) {
    let address = bar.address + bell.offset;
    if let Err(error) = events.unregister(address, &bell.event) {
        tracing::debug!(%error, address, "doorbell was not registered");
    }
}

#[cfg(any(test, feature = "testing"))]
impl Mappings {
    /// What has to hold after every change, whatever the guest did.
    pub(super) fn check(&self, functions: &[Arc<dyn PciFunction>]) {
        let mut end = 0;
        for (&start, mapping) in &self.by_address {
            assert!(
                start >= end && start == mapping.bar.address,
                "BARs over each other"
            );
            assert!(
                self.forwards(&mapping.bar),
                "a BAR outside of the windows: {start:#x}"
            );
            let alive = functions.iter().any(|it| Arc::ptr_eq(it, &mapping.function));
            assert!(alive, "a BAR of nobody");
            end = start + mapping.bar.size;
        }
        for bar in functions.iter().flat_map(|function| function.bars()) {
            assert!(
                !self.forwards(&bar) || !self.is_free(&bar),
                "{bar:?} does not answer"
            );
        }
    }

    pub(super) fn doorbells(&self) -> Vec<u64> {
        let mappings = self.by_address.iter();
        mappings
            .flat_map(|(start, mapping)| mapping.doorbells.iter().map(move |bell| start + bell.offset))
            .collect()
    }
}
