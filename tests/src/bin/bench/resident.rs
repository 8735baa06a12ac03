//! What a process takes of the host's memory; of a monitor, beside the guest's.

use anyhow::{Context, Result};

/// MiB beyond guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Overhead {
    /// Resident pages, shared ones counted whole.
    pub rss: f64,
    /// Resident pages, shared ones divided by who shares them.
    pub pss: f64,
}

/// A run of adjacent mappings. (Advice about huge pages splits one mapping into several.)
struct Run {
    end: u64,
    size: u64,
    rss_kib: u64,
    pss_kib: u64,
}

/// Guest memory is the smallest run of adjacent writable mappings that is at least as large as it.
///
/// # Errors
/// The process is gone, or has no such mapping.
pub fn overhead(pid: u32, memory_mib: u64) -> Result<Overhead> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut runs: Vec<Run> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some((start, end)) = key.split_once('-') {
            let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
                continue;
            };
            match runs.last_mut() {
                Some(run) if run.end == start && value.starts_with("rw-") => {
                    run.size += end - start;
                    run.end = end;
                }
                _ => runs.push(Run {
                    end,
                    size: end - start,
                    rss_kib: 0,
                    pss_kib: 0,
                }),
            }
        } else if let Some(run) = runs.last_mut() {
            match key {
                "Rss:" => run.rss_kib += value.parse::<u64>()?,
                "Pss:" => run.pss_kib += value.parse::<u64>()?,
                _ => {}
            }
        }
    }
    let guest = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| run.size >= memory_mib << 20)
        .min_by_key(|(_, run)| run.size)
        .map(|(index, _)| index)
        .with_context(|| format!("process {pid} maps no {memory_mib} MiB"))?;
    let sum = |kib: fn(&Run) -> u64| {
        let rest = runs.iter().enumerate().filter(|(index, _)| *index != guest);
        rest.map(|(_, run)| kib(run)).sum::<u64>() as f64 / 1024.0
    };
    Ok(Overhead {
        rss: sum(|run| run.rss_kib),
        pss: sum(|run| run.pss_kib),
    })
}

/// MiB of a process that are resident.
///
/// # Errors
/// The process is gone.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}
