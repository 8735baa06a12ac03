//! Why chunks have the size they have: `cargo run --release -p hearth-block --example chunk_sizes [DIR]`.
//!
//! For each chunk size, on a fresh 4 GiB overlay over a 4 GiB base with data: random 4 KiB writes until 4,000 are done,
//! then a sequential 256 MiB, each ended by a flush. "written" is what reached the data file per byte of the guest's.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Instant;

use hearth_block::{Disk, Overlay, overlay};

const SIZE: u64 = 4 << 30;
const RANDOM: u64 = 4000;
const SEQUENTIAL: u64 = 256 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let new = || tempfile::tempfile_in(&dir);
    let base = new()?;
    base.set_len(SIZE)?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i / 7) as u8).collect();
    for mib in 0..512 {
        base.write_all_at(&block, mib << 20)?;
    }
    println!(
        "{:>8} {:>10} {:>10} {:>11} {:>12} {:>11} {:>12}",
        "chunk", "map/TiB", "create", "open 1 TiB", "random 4K", "written", "sequential"
    );
    for chunk in [4u64, 16, 32, 64, 128, 256, 1024].map(|kib| kib << 10) {
        let (data, map) = (new()?, new()?);
        let start = Instant::now();
        overlay::create_chunked(&data, &map, SIZE, SIZE, chunk)?;
        let create = start.elapsed();
        let open_huge = open_tebibyte(&new, chunk)?;

        let disk = Overlay::open(data.try_clone()?, map, base.try_clone()?)?;
        let mut random = 88_172_645_463_325_252u64;
        let start = Instant::now();
        for _ in 0..RANDOM {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            disk.write_at(&block[..4096], random % (SIZE / 4096) * 4096)?;
        }
        disk.flush()?;
        let random_rate = RANDOM as f64 / start.elapsed().as_secs_f64();
        let written = (data.metadata()?.blocks() * 512) as f64 / (RANDOM * 4096) as f64;

        let (data, map) = (new()?, new()?);
        overlay::create_chunked(&data, &map, SIZE, SIZE, chunk)?;
        let disk = Overlay::open(data, map, base.try_clone()?)?;
        let start = Instant::now();
        for offset in (0..SEQUENTIAL).step_by(128 << 10) {
            disk.write_at(&block[..128 << 10], offset)?;
        }
        disk.flush()?;
        let sequential = SEQUENTIAL as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
        println!(
            "{:>4} KiB {:>6} KiB {:>7} µs {:>8} µs {:>8.0}/s {:>10.1}x {:>7.0} MiB/s",
            chunk >> 10,
            ((1 << 40) / chunk / 8) >> 10,
            create.as_micros(),
            open_huge,
            random_rate,
            written,
            sequential
        );
    }
    Ok(())
}

/// Microseconds.
fn open_tebibyte(
    new: &impl Fn() -> std::io::Result<File>,
    chunk: u64,
) -> Result<u128, Box<dyn std::error::Error>> {
    let (data, map, base) = (new()?, new()?, new()?);
    overlay::create_chunked(&data, &map, 0, 1 << 40, chunk)?;
    let start = Instant::now();
    Overlay::open(data, map, base)?;
    Ok(start.elapsed().as_micros())
}
