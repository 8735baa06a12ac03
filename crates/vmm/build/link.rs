//! How `hearth-vmm` is linked. Most of a monitor's own memory is pages of code, which come 16 at a time: it is small
//! where the code that runs is side by side, and where there are no libraries that have their own code and tables.

use std::error::Error;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    statically(&out)?;
    start_together(&out)
}

fn argument(text: &str) {
    println!("cargo::rustc-link-arg-bins={text}");
}

/// As one file, which the kernel maps and which relocates itself: without a loader, and without what of a library is
/// never called.
///
/// rustc's `crt-static` would do so to all of the workspace's binaries, and others load modules of the C library (names
/// of hosts and users). So the shared libraries that rustc asks for are shadowed by archives for this link only.
fn statically(out: &Path) -> Result<(), Box<dyn Error>> {
    let shadows = out.join("static");
    fs::create_dir_all(&shadows)?;
    for (wanted, archive) in ARCHIVES {
        let Some(found) = find(archive)? else {
            println!("cargo::warning=no {archive} here: hearth-vmm will take more memory");
            return Ok(());
        };
        let shadow = shadows.join(wanted);
        let _ = fs::remove_file(&shadow);
        symlink(found, shadow)?;
    }
    argument(&format!("-L{}", shadows.display()));
    argument("-static-pie");
    // They need one another. rustc's linker looks through all of them for it, GNU's only through those that come later.
    argument("-Wl,--start-group,-lgcc_s,-lgcc,-lc,--end-group");
    Ok(())
}

/// Where the C compiler, which links, has a file; it repeats the name of one that it has not.
fn find(archive: &str) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let output = Command::new("cc")
        .arg(format!("-print-file-name={archive}"))
        .output()?;
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok(path.is_absolute().then_some(path))
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
