//! A collection of the repository in a directory that has much to find.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hearth_repository::{CHUNK, Repository};

use crate::disk::directory;

/// Chunks that nobody needs.
const GARBAGE: u64 = 1_000_000;
/// Chunks of a snapshot.
const NEEDED: u64 = 2000;

pub fn run() -> Result<()> {
    let garbage = match std::env::var("HEARTH_BENCH_CHUNKS") {
        Ok(number) => number.parse().context("HEARTH_BENCH_CHUNKS")?,
        Err(_) => GARBAGE,
    };
    let dir = directory()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let repository = Repository::in_directory(dir.path())?;
        let begin = Instant::now();
        let mut writer = repository.write(None, None).await?;
        for index in 0..NEEDED {
            let mut chunk = vec![0; CHUNK];
            chunk[..8].copy_from_slice(&(index + 1).to_le_bytes());
            writer.put(index, chunk.into()).await?;
        }
        writer.finish("snap-1", NEEDED * CHUNK as u64).await?;
        let stored = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        litter(dir.path(), garbage)?;
        let littered = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let collected = repository.collect(|| true).await?;
        let took = begin.elapsed().as_secs_f64();
        ensure!(
            collected.removed == garbage && collected.kept > NEEDED,
            "{collected:?} of {garbage} chunks that nobody needs, and {NEEDED} that a snapshot needs"
        );
        let begin = Instant::now();
        repository.collect(|| true).await?;
        println!(
            "\ncollection: {garbage} chunks that nobody needs, beside {NEEDED} of a snapshot: {took:.1} s, {:.0} chunks a second; with \
             nothing to remove {:.0} ms\n({NEEDED} chunks were stored in {stored:.1} s; the others took {littered:.1} s to be put there)",
            garbage as f64 / took,
            begin.elapsed().as_secs_f64() * 1000.0,
        );
        Ok(())
    })
}

/// Files with the names of chunks. A collection does not look into them.
fn litter(repository: &Path, number: u64) -> Result<()> {
    let chunks = repository.join("chunks");
    for shelf in 0..256 {
        std::fs::create_dir_all(chunks.join(format!("{shelf:02x}")))?;
    }
    for nth in 0..number {
        let [a, b, c, d]: [u64; 4] = rand::random();
        let name = format!("{a:016x}{b:016x}{c:016x}{d:016x}");
        let (shelf, rest) = name.split_at(2);
        std::fs::write(chunks.join(shelf).join(rest), nth.to_le_bytes())?;
    }
    Ok(())
}
