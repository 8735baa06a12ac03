//! The host itself: which boot this is.

use std::io;

/// The kernel's id of this boot: random, another after each restart (`random(4)`).
///
/// # Errors
/// `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    // Tests play restarts of the host.
    #[cfg(debug_assertions)]
    if let Ok(id) = std::env::var("HEARTH_AGENT_BOOT_ID") {
        return Ok(id);
    }
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}
