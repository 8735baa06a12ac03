//! The host's side of a disk: what can be changed while a guest uses it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_block::Disk;

use crate::limits::{Limiter, RateLimit};
use crate::virtio::interrupt::ConfigInterrupt;

/// A disk as the control thread holds it, through all boots; the device of each boot shares it.
pub struct Handle {
    disk: Arc<dyn Disk>,
    limiter: Arc<Limiter>,
    /// What reaches the driver, while it drives the device.
    driver: Mutex<Option<ConfigInterrupt>>,
}

impl Handle {
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, limit: &RateLimit) -> Arc<Self> {
        Arc::new(Self {
            disk,
            limiter: Limiter::new(limit),
            driver: Mutex::default(),
        })
    }

    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The limit on requests, and on the bytes of reads and writes. It may be changed at any time.
    #[must_use]
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// Looks at the backing's size again, tells the driver, and returns the size in bytes.
    ///
    /// # Errors
    /// The backing cannot be asked.
    pub fn refresh_size(&self) -> io::Result<u64> {
        let size = self.disk.refresh_size()?;
        if let Some(driver) = &*self.driver.lock().unwrap_or_else(PoisonError::into_inner) {
            driver.config_changed();
        }
        Ok(size)
    }

    pub(super) fn set_driver(&self, driver: Option<ConfigInterrupt>) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = driver;
    }
}
