//! The test guest's program. It has a target configuration of its own, so cargo builds it by itself.

use std::path::PathBuf;
use std::process::Command;

/// Builds it, unless it is up to date, and says where it is.
pub fn build() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("testguest");
    let status = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../testguest"))
        .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        // They are for the host's programs, and would replace the guest's own flags.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .unwrap();
    assert!(status.success(), "the test guest does not build");
    target.join("x86_64-unknown-linux-gnu/release/testguest")
}
