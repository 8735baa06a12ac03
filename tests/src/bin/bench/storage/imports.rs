//! `hearth upload-image` of a qcow2 image, which is unpacked, inspected, hashed, compressed and made durable, beside `qemu-img
//! convert`, which copies it to a raw file or compresses it to another one.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hearth_tests::Cloud;

use crate::boot::runs;
use crate::disk::directory;
use crate::stats::{Row, Samples, print};

const MIB: usize = 1 << 20;
const SIZE: usize = 1024 * MIB;
/// What is not zeros: half of it noise, half of it compressible.
const FILLED: std::ops::Range<usize> = 128 * MIB..640 * MIB;

pub fn run(cloud: &Cloud) -> Result<()> {
    let dir = directory()?;
    let (raw, packed, out) = (
        dir.path().join("raw"),
        dir.path().join("qcow2"),
        dir.path().join("out"),
    );
    make(&raw)?;
    let convert = |options: &[&str], from: &Path, to: &Path| {
        let mut command = Command::new("qemu-img");
        command.arg("convert").args(options).arg(from).arg(to);
        time(&mut command)
    };
    convert(&["-O", "qcow2"], &raw, &packed)?;
    let mut all = [const { Samples::new() }; 3];
    for round in 0..runs()? {
        let mut upload = Command::new(hearth_tests::binary("hearth")?);
        upload
            .args([
                "--endpoint-url",
                &cloud.endpoint(),
                "upload-image",
                "--name",
                &format!("import-{round}"),
                "--disk-image",
            ])
            .arg(&packed);
        let took = [
            time(&mut upload)?,
            convert(&["-t", "writeback", "-f", "qcow2", "-O", "raw"], &packed, &out)?,
            convert(
                &["-t", "writeback", "-c", "-f", "qcow2", "-O", "qcow2"],
                &packed,
                &out,
            )?,
        ];
        for (samples, took) in all.iter_mut().zip(took) {
            samples.add((FILLED.len() / MIB) as f64 / took);
        }
        std::fs::remove_file(&out)?;
    }
    println!(
        "\nimport: a qcow2 image of 1 GiB with {} MiB in it, {} runs in turn\n",
        FILLED.len() / MIB,
        runs()?
    );
    print(
        &[
            "hearth upload-image",
            "qemu-img convert to raw",
            "qemu-img convert, compressed",
        ],
        &[Row {
            name: "MiB a second",
            contenders: all.into(),
        }],
    );
    Ok(())
}

fn make(raw: &Path) -> Result<()> {
    let mut disk = std::fs::read(std::env::var_os("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?)?;
    ensure!(
        disk.len() <= FILLED.start,
        "the tiny AMI is larger than {} MiB",
        FILLED.start / MIB
    );
    disk.resize(SIZE, 0);
    let (noise, words) = disk[FILLED].split_at_mut(FILLED.len() / 2);
    rand::fill(noise);
    for (at, word) in words.chunks_exact_mut(16).enumerate() {
        word.copy_from_slice(format!("line {at:010}\n").as_bytes());
    }
    Ok(std::fs::write(raw, disk)?)
}

/// Seconds.
fn time(command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(begin.elapsed().as_secs_f64())
}
