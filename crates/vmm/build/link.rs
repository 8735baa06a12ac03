//! How `hearth-vmm` is linked. Most of a monitor's own memory is pages of code, which come 16 at a time: it is small
//! where the code that runs is side by side, and where there are no libraries that have their own code and tables.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What runs while a guest boots, found by `scripts/start-functions.py`: functions by their mangled names with `*` for
/// the compiler's hashes, and members of the C library.
const START: &str = "start.functions";
/// What the linker is told to look for, and what it shall find.
const ARCHIVES: [(&str, &str); 3] = [
    ("libc.a", "libc.a"),
    ("libm.a", "libm.a"),
    ("libgcc_s.a", "libgcc_eh.a"),
];

/// # Errors
/// The list is missing, or a file cannot be written.
pub fn link() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // A bit for each relocation instead of 24 bytes, all of which would be read at each start. glibc knows it from
    // 2.36 on.
    argument("-Wl,-z,pack-relative-relocs");
    start_together(&out)
}

fn argument(text: &str) {
    println!("cargo::rustc-link-arg-bins={text}");
}

/// Has what runs at each start put in front of all other code. A name that is no more is nothing to the linker.
fn start_together(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={START}");
    let mut script = String::from("SECTIONS { .text.start : {\n");
    for name in fs::read_to_string(START)?.lines() {
        match name.strip_prefix("libc.a:") {
            Some(member) => writeln!(script, "*libc.a:{member}(.text .text.*)")?,
            None => writeln!(script, "*(.text.{name} .text.unlikely.{name})")?,
        }
    }
    script.push_str("} } INSERT BEFORE .text;\n");
    let path = out.join("start.ld");
    fs::write(&path, script)?;
    argument(&format!("-Wl,-T,{}", path.display()));
    Ok(())
}
