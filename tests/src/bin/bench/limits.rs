//! Rate limits as a guest meets them: the bare-metal guest asks for more than it may have for about ten seconds, and the
//! rate that it gets is compared with the limit. The disk is small and in the host's page cache, so that nothing else
//! holds the guest up.

use std::num::NonZeroU64;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use hearth_vmm::control::{Reply, Request};
use hearth_vmm::limits::{Rate, RateLimit};
use hearth_vmm::spec::Cache;

use crate::disk::{directory, make_disk, parse, testguest, ticks_per_second};
use crate::hearth::{DISK, Disk, Machine, start_machine};

const DISK_MIB: usize = 64;
const MEMORY_MIB: u64 = 128;
const SECONDS: u64 = 10;
const PAGE: u64 = 4 << 10;
const MIB: u64 = 1 << 20;

/// Operations or bytes of each request, and how many requests at once.
enum Load {
    Operations { per_second: u64, depth: u64 },
    Bytes { per_second: u64, length: u64 },
}

impl Load {
    fn limit(&self) -> RateLimit {
        let rate = |per_second| {
            Some(Rate {
                per_second: NonZeroU64::new(per_second).unwrap_or(NonZeroU64::MAX),
                burst: 0,
            })
        };
        match *self {
            Self::Operations { per_second, .. } => RateLimit {
                operations: rate(per_second),
                bytes: None,
            },
            Self::Bytes { per_second, .. } => RateLimit {
                operations: None,
                bytes: rate(per_second),
            },
        }
    }

    /// The same guest's next limit.
    fn halved(&self) -> Self {
        match *self {
            Self::Operations { per_second, depth } => Self::Operations {
                per_second: per_second / 2,
                depth,
            },
            Self::Bytes { per_second, length } => Self::Bytes {
                per_second: per_second / 2,
                length,
            },
        }
    }

    /// Operations a second.
    fn rate(&self) -> f64 {
        match *self {
            Self::Operations { per_second, .. } => per_second as f64,
            Self::Bytes { per_second, length } => per_second as f64 / length as f64,
        }
    }

    /// For a guest that does it twice.
    fn cmdline(&self) -> String {
        let (length, depth) = match *self {
            Self::Operations { depth, .. } => (PAGE, depth),
            Self::Bytes { length, .. } => (length, 8),
        };
        let operations = (self.rate() * SECONDS as f64) as u64;
        format!(
            "bench=random_read,random_read depth={depth} length={length} operations={operations} then=wait"
        )
    }

    fn name(&self) -> String {
        match *self {
            Self::Operations { per_second, depth } => format!("{per_second} operations/s, depth {depth}"),
            Self::Bytes { per_second, length } => {
                format!("{} MiB/s in requests of {} KiB", per_second / MIB, length >> 10)
            }
        }
    }
}

const LOADS: [Load; 6] = [
    Load::Operations {
        per_second: 50,
        depth: 1,
    },
    Load::Operations {
        per_second: 1_000,
        depth: 1,
    },
    Load::Operations {
        per_second: 20_000,
        depth: 32,
    },
    Load::Operations {
        per_second: 100_000,
        depth: 32,
    },
    Load::Bytes {
        per_second: 10 * MIB,
        length: PAGE,
    },
    Load::Bytes {
        per_second: 200 * MIB,
        length: MIB,
    },
];

pub fn run() -> Result<()> {
    let kernel = testguest()?;
    let binary = hearth_tests::binary("hearth-vmm")?;
    let dir = directory()?;
    let disk = make_disk(dir.path(), DISK_MIB)?;
    let ticks_per_second = ticks_per_second();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "limit",
        "operations/s wanted",
        "got",
        "off by",
        "got after a change to half",
    ]);
    for load in LOADS {
        let cmdline = load.cmdline();
        let machine = Machine {
            cmdline: &cmdline,
            memory_mib: MEMORY_MIB,
            from: None,
            disk: Some(Disk {
                path: &disk,
                cache: Cache::Writeback,
                limit: load.limit(),
            }),
        };
        let (mut running, mut client) = start_machine(&binary, dir.path(), &kernel, &machine)?;
        let mut rates = Vec::new();
        while rates.len() < 2 {
            let line = running.next_line()?.context("the monitor ended")?;
            let Some(figures) = line.strip_prefix("bench ") else {
                continue;
            };
            let (operations, ticks) = parse(figures).with_context(|| line.clone())?;
            rates.push(operations / (ticks / ticks_per_second));
            if rates.len() == 1 {
                let request = Request::SetRateLimit {
                    device: DISK.into(),
                    limit: load.halved().limit(),
                };
                match client.request(&request)? {
                    Reply::Ok => {}
                    other => bail!("instead of new limits: {other:?}"),
                }
            }
        }
        let off = |rate: f64, wanted: f64| format!("{:+.2} %", (rate / wanted - 1.0) * 100.0);
        table.add_row([
            load.name(),
            format!("{:.1}", load.rate()),
            format!("{:.1}", rates[0]),
            off(rates[0], load.rate()),
            format!("{:.1} ({})", rates[1], off(rates[1], load.rate() / 2.0)),
        ]);
    }
    println!(
        "\nrate limits: random reads over about {SECONDS} s, and {} s after the change\n",
        2 * SECONDS
    );
    println!("{table}");
    Ok(())
}
