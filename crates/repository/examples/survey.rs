//! How long a survey of many snapshots takes: `cargo run --release -p hearth-repository --example survey -- 10000`. Each is made from
//! the one before, of a disk of 8 GiB, with two chunks of its own.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use hearth_repository::{CHUNK, Repository};
use object_store::local::LocalFileSystem;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args()
        .nth(1)
        .unwrap_or_default()
        .parse()
        .unwrap_or(1000);
    let dir = tempfile::tempdir()?;
    // Not synced: what is made here need not be there tomorrow.
    let repository = Repository::new(Arc::new(LocalFileSystem::new_with_prefix(dir.path())?));
    let begin = Instant::now();
    for number in 0..count {
        let base = number.checked_sub(1).map(|before| format!("snap-{before}"));
        let mut writer = repository.write(base.as_deref(), None).await?;
        for index in [number % 16_384, number.wrapping_mul(7919) % 16_384] {
            let mut chunk = vec![0; CHUNK];
            chunk[..8].copy_from_slice(&(number << 20 | index).to_le_bytes());
            chunk[8] = 1;
            writer.put(index, chunk.into()).await?;
        }
        writer.finish(&format!("snap-{number}"), 8 << 30).await?;
    }
    println!("made {count} snapshots in {:?}", begin.elapsed());
    for _ in 0..2 {
        let begin = Instant::now();
        let survey = repository.survey().await?;
        println!(
            "surveyed {} in {:?}: {:?}",
            survey.snapshots.len(),
            begin.elapsed(),
            survey.totals
        );
    }
    Ok(())
}
