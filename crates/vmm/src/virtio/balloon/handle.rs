//! The host's side of a balloon: what it wishes, and what it knows.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::statistics::{Statistic, Statistics};
use crate::memory::MIB;
use crate::memory::release::PAGE;
use crate::notices::{Notice, Notices};
use crate::virtio::interrupt::ConfigInterrupt;

const PAGES_PER_MIB: u64 = MIB / PAGE;

/// What a balloon is made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonOptions {
    /// MiB that the guest shall give up from the start.
    #[serde(default)]
    pub target_mib: u64,
    /// The guest may take pages out of the balloon before it kills a process for want of memory.
    #[serde(default)]
    pub deflate_on_oom: bool,
    /// The guest tells of pages as they become free, and the host has them until they are used again.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// What there is to know about a balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStatus {
    /// MiB that the host wants to have.
    pub target_mib: u64,
    /// MiB that the driver says it gave, rounded down.
    pub actual_mib: u64,
    /// What the guest last said about its memory; empty before it has said anything.
    pub statistics: BTreeMap<Statistic, u64>,
    /// Milliseconds since it said so.
    pub statistics_age_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("a balloon of {target_mib} MiB in a machine of {memory_mib} MiB")]
    TooLarge { target_mib: u64, memory_mib: u64 },
}

/// A balloon as the control thread holds it, through all boots; the device of each boot shares it.
pub struct Handle {
    options: BalloonOptions,
    memory_mib: u64,
    /// In pages, as the configuration space has them.
    target: AtomicU32,
    actual: AtomicU32,
    /// The target changed while nobody drove the device, or the machine was paused.
    untold: AtomicBool,
    statistics: Mutex<Option<(Instant, Statistics)>>,
    /// Someone wants fresh statistics: the driver's buffer is to be given back.
    wished: AtomicBool,
    /// It was given back, and whoever wants to know is to be told when it comes again.
    awaited: AtomicBool,
    /// Wakes the worker.
    wake: EventFd,
    attached: Mutex<Option<Attached>>,
}

/// What reaches the driver, while it drives the device, and the control thread.
struct Attached {
    config: ConfigInterrupt,
    notices: Arc<Notices>,
}

impl Handle {
    /// For a machine of `memory_mib`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(options: BalloonOptions, memory_mib: u64) -> io::Result<Arc<Self>> {
        let handle = Self {
            options,
            memory_mib,
            target: AtomicU32::new(pages(options.target_mib.min(memory_mib))),
            actual: AtomicU32::new(0),
            untold: AtomicBool::new(false),
            statistics: Mutex::default(),
            wished: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            wake: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            attached: Mutex::default(),
        };
        Ok(Arc::new(handle))
    }

    /// Tells the driver how much to give up; it is up to it when, and whether it can.
    ///
    /// # Errors
    /// It is more than the machine has.
    pub fn set_target(&self, target_mib: u64) -> Result<(), TargetError> {
        if target_mib > self.memory_mib {
            let memory_mib = self.memory_mib;
            return Err(TargetError::TooLarge {
                target_mib,
                memory_mib,
            });
        }
        self.target.store(pages(target_mib), Ordering::Release);
        match &*lock(&self.attached) {
            Some(attached) => attached.config.config_changed(),
            None => self.untold.store(true, Ordering::Release),
        }
        Ok(())
    }

    /// Asks the driver for fresh statistics; a [`Notice::BalloonStatistics`] says when they have come, which is
    /// up to the guest.
    pub fn ask_for_statistics(&self) {
        self.wished.store(true, Ordering::Release);
        // A full counter wakes as well.
        let _ = self.wake.write(1);
    }

    #[must_use]
    pub fn status(&self) -> BalloonStatus {
        let mib = |pages: &AtomicU32| u64::from(pages.load(Ordering::Acquire)) / PAGES_PER_MIB;
        let (age, statistics) = match &*lock(&self.statistics) {
            Some((at, statistics)) => (at.elapsed(), statistics.clone()),
            None => Default::default(),
        };
        BalloonStatus {
            target_mib: mib(&self.target),
            actual_mib: mib(&self.actual),
            statistics,
            statistics_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn options(&self) -> BalloonOptions {
        self.options
    }

    /// `num_pages` and `actual`, as in the configuration space.
    pub(super) fn pages(&self) -> (u32, u32) {
        (
            self.target.load(Ordering::Acquire),
            self.actual.load(Ordering::Acquire),
        )
    }

    /// Takes both over from a snapshot; false if the target is more than the machine has. What a driver says of
    /// itself is not judged.
    pub(super) fn set_pages(&self, target: u32, actual: u32) -> bool {
        let fits = target <= pages(self.memory_mib);
        if fits {
            self.target.store(target, Ordering::Release);
            self.set_actual(actual);
        }
        fits
    }

    pub(super) fn set_actual(&self, actual: u32) {
        self.actual.store(actual, Ordering::Release);
    }

    pub(super) fn attach(&self, config: ConfigInterrupt, notices: Arc<Notices>) {
        let mut attached = lock(&self.attached);
        if self.untold.swap(false, Ordering::AcqRel) {
            config.config_changed();
        }
        *attached = Some(Attached { config, notices });
    }

    pub(super) fn detach(&self) {
        *lock(&self.attached) = None;
    }

    /// The worker is awake.
    pub(super) fn silence(&self) {
        // That nobody woke it by this is no error.
        let _ = self.wake.read();
    }

    /// Whether fresh statistics are wanted. The worker calls this when it can ask for them.
    pub(super) fn take_wish(&self) -> bool {
        let wished = self.wished.swap(false, Ordering::AcqRel);
        if wished {
            self.awaited.store(true, Ordering::Release);
        }
        wished
    }

    /// Statistics have come.
    pub(super) fn store(&self, statistics: Statistics) {
        *lock(&self.statistics) = Some((Instant::now(), statistics));
        // Only as often as someone asked: a guest must not fill the control thread's letter box.
        if self.awaited.swap(false, Ordering::AcqRel)
            && let Some(attached) = &*lock(&self.attached)
        {
            attached.notices.post(Notice::BalloonStatistics);
        }
    }
}

impl AsRawFd for Handle {
    /// Readable when the worker has something to look at.
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

/// Sixteen TiB, the most that a machine may have, are one page more than fits.
fn pages(mib: u64) -> u32 {
    u32::try_from(mib.saturating_mul(PAGES_PER_MIB)).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
