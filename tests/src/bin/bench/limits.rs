//! Rate limits as a guest meets them: the bare-metal guest asks for more than it may have for about ten seconds, and the
//! rate that it gets is compared with the limit. The disk is small and in the host's page cache, and packets go no
//! further than the TAP, so that nothing else holds the guest up; what it gets without a limit, at last, shows that.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::Path;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use hearth_vmm::control::{Client, Reply, Request};
use hearth_vmm::limits::{Rate, RateLimit};
use hearth_vmm::spec::Cache;

use crate::disk::{directory, make_disk, parse, testguest, ticks_per_second};
use crate::hearth::{DISK, Disk, Machine, NIC, Nic, start_machine};
use crate::running::Running;
use crate::wire::{Wire, in_a_namespace};

const DISK_MIB: usize = 64;
const MEMORY_MIB: u64 = 128;
const SECONDS: u64 = 10;
const PAGE: u64 = 4 << 10;
const MIB: u64 = 1 << 20;

/// What is limited, to how much a second.
#[derive(Clone, Copy)]
enum Load {
    /// So many reads of 4 KiB at once.
    Reads { per_second: u64, depth: u64 },
    /// Reads of so many bytes, eight at once.
    ReadBytes { per_second: u64, length: u64 },
    /// Sent, of 64 bytes.
    Packets { per_second: u64 },
}

const LOADS: [Load; 8] = [
    Load::Reads {
        per_second: 50,
        depth: 1,
    },
    Load::Reads {
        per_second: 1_000,
        depth: 1,
    },
    Load::Reads {
        per_second: 20_000,
        depth: 32,
    },
    Load::Reads {
        per_second: 100_000,
        depth: 64,
    },
    Load::ReadBytes {
        per_second: 10 * MIB,
        length: PAGE,
    },
    Load::ReadBytes {
        per_second: 200 * MIB,
        length: MIB,
    },
    Load::Packets { per_second: 1_000 },
    Load::Packets { per_second: 100_000 },
];

impl Load {
    fn limit(self) -> RateLimit {
        let rate = |per_second| {
            Some(Rate {
                per_second: NonZeroU64::new(per_second).unwrap_or(NonZeroU64::MAX),
                burst: 0,
            })
        };
        match self {
            Self::Reads { per_second, .. } | Self::Packets { per_second } => RateLimit {
                operations: rate(per_second),
                bytes: None,
            },
            Self::ReadBytes { per_second, .. } => RateLimit {
                operations: None,
                bytes: rate(per_second),
            },
        }
    }

    /// The same guest's next limit.
    fn halved(mut self) -> Self {
        let (Self::Reads { per_second, .. }
        | Self::ReadBytes { per_second, .. }
        | Self::Packets { per_second }) = &mut self;
        *per_second /= 2;
        self
    }

    /// Operations a second.
    fn rate(self) -> f64 {
        match self {
            Self::Reads { per_second, .. } | Self::Packets { per_second } => per_second as f64,
            Self::ReadBytes { per_second, length } => per_second as f64 / length as f64,
        }
    }

    /// For a guest that does it three times: with this limit, with the half of it, and with none.
    fn cmdline(self) -> String {
        let work = match self {
            Self::Reads { depth, .. } => {
                format!("bench=random_read,random_read,random_read depth={depth} length={PAGE}")
            }
            Self::ReadBytes { length, .. } => {
                format!("bench=random_read,random_read,random_read depth=8 length={length}")
            }
            Self::Packets { .. } => "bench=packets,packets,packets depth=1 length=64".to_owned(),
        };
        let operations = (self.rate() * SECONDS as f64) as u64;
        format!("{work} operations={operations} then=wait")
    }

    fn name(self) -> String {
        match self {
            Self::Reads { per_second, depth } => format!("disk: {per_second} operations/s, depth {depth}"),
            Self::ReadBytes { per_second, length } => {
                format!(
                    "disk: {} MiB/s in reads of {} KiB",
                    per_second / MIB,
                    length >> 10
                )
            }
            Self::Packets { per_second } => format!("NIC: {per_second} packets/s sent"),
        }
    }

    /// A machine with what is limited.
    fn start(
        self,
        binary: &Path,
        dir: &Path,
        kernel: &Path,
        disk: &Path,
        tap: File,
    ) -> Result<(Running, Client)> {
        let cmdline = self.cmdline();
        let mut machine = Machine {
            cmdline: &cmdline,
            memory_mib: MEMORY_MIB,
            ..Machine::default()
        };
        match self {
            Self::Reads { .. } | Self::ReadBytes { .. } => {
                machine.disk = Some(Disk {
                    path: disk,
                    cache: Cache::Writeback,
                    limit: self.limit(),
                });
            }
            Self::Packets { .. } => {
                machine.nic = Some(Nic {
                    tap,
                    limit: self.limit(),
                });
            }
        }
        start_machine(binary, dir, kernel, machine)
    }

    /// What sets another limit to the same device.
    fn request(self, limit: RateLimit) -> Request {
        match self {
            Self::Reads { .. } | Self::ReadBytes { .. } => Request::SetRateLimit {
                device: DISK.into(),
                limit,
            },
            Self::Packets { .. } => Request::SetNicRateLimits {
                device: NIC.into(),
                receive: RateLimit::default(),
                transmit: limit,
            },
        }
    }
}

pub fn run() -> Result<()> {
    let table = in_a_namespace(measure)?;
    println!(
        "\nrate limits: 1 vCPU, about {SECONDS} s with the limit and {} s with the half of it\n",
        2 * SECONDS
    );
    println!("{table}");
    Ok(())
}

fn measure() -> Result<Table> {
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
        "got after the limit was lifted",
    ]);
    for load in LOADS {
        let wire = Wire::new()?;
        let (mut running, mut client) = load.start(&binary, dir.path(), &kernel, &disk, wire.open()?)?;
        let mut rate = || -> Result<f64> {
            loop {
                let line = running.next_line()?.context("the monitor ended")?;
                if let Some(figures) = line.strip_prefix("bench ") {
                    let (operations, ticks) = parse(figures).with_context(|| line.clone())?;
                    return Ok(operations / (ticks / ticks_per_second));
                }
            }
        };
        let mut set = |limit| match client.request(&load.request(limit))? {
            Reply::Ok => Ok(()),
            other => bail!("instead of new limits: {other:?}"),
        };
        let got = rate()?;
        set(load.halved().limit())?;
        let got_after = rate()?;
        set(RateLimit::default())?;
        let off = |rate: f64, wanted: f64| format!("{:+.2} %", (rate / wanted - 1.0) * 100.0);
        table.add_row([
            load.name(),
            format!("{:.1}", load.rate()),
            format!("{got:.1}"),
            off(got, load.rate()),
            format!("{got_after:.1} ({})", off(got_after, load.rate() / 2.0)),
            format!("{:.1}", rate()?),
        ]);
    }
    Ok(table)
}
