//! Disks through the engine that drives them, in this process and through the host's page cache: a plain raw file, and an
//! overlay of which every chunk is present. Then the same beside `qemu-img bench`, in steps, as it cannot jump.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hearth_block::cipher::KEY_LEN;
use hearth_block::engine::{self, Engine, Operation, Pool, Request, Segment};
use hearth_block::{Backing, Cipher, Disk, Key, Overlay, RawDisk, overlay};

use crate::boot::runs;
use crate::disk::{directory, drop_from_cache, make_disk};
use crate::stats::{Row, Samples, print};

const MIB: u64 = 1 << 20;
const SIZE_MIB: usize = 1024;
const SIZE: u64 = SIZE_MIB as u64 * MIB;
const DEPTH: usize = 32;
/// Of `qemu-img bench`: its requests come back to the beginning, a little further on.
const STEP: u64 = MIB + 4096;

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    operation: Operation,
    len: usize,
    depth: usize,
    requests: u64,
    offset: fn(u64) -> u64,
}

fn random(nth: u64) -> u64 {
    let mixed = nth
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (mixed >> 33) % (SIZE / 4096) * 4096
}

fn sequential(nth: u64) -> u64 {
    nth % SIZE_MIB as u64 * MIB
}

fn stepped(nth: u64) -> u64 {
    nth * STEP % (SIZE - 4096)
}

const SMALL: Load = Load {
    name: "4 KiB random reads, depth 32, thousands a second",
    operation: Operation::Read,
    len: 4096,
    depth: DEPTH,
    requests: 200_000,
    offset: random,
};
const LARGE: Load = Load {
    name: "1 MiB sequential reads, depth 8, thousands a second",
    operation: Operation::Read,
    len: MIB as usize,
    depth: 8,
    requests: 4096,
    offset: sequential,
};
const LOADS: [Load; 4] = [
    SMALL,
    Load {
        name: "4 KiB random writes, depth 32, thousands a second",
        operation: Operation::Write,
        ..SMALL
    },
    LARGE,
    Load {
        name: "1 MiB sequential writes, depth 8, thousands a second",
        operation: Operation::Write,
        requests: 2048,
        ..LARGE
    },
];
const STEPS: [Load; 2] = [
    Load {
        name: "4 KiB reads in steps, depth 32, thousands a second",
        offset: stepped,
        ..SMALL
    },
    Load {
        name: "4 KiB writes in steps, depth 32, thousands a second",
        operation: Operation::Write,
        offset: stepped,
        ..SMALL
    },
];

pub fn run() -> Result<()> {
    let dir = directory()?;
    let raw = make_disk(dir.path(), SIZE_MIB)?;
    let plain: Arc<dyn Disk> = Arc::new(RawDisk::new(open(&raw)?)?);
    let cipher = Cipher::new(&Key::new(&noise(KEY_LEN)).context("a key")?)?;
    let disks = [
        hydrated(dir.path(), "overlay", None)?,
        plain,
        hydrated(dir.path(), "encrypted", Some(cipher))?,
    ];
    for path in [&dir.path().join("overlay"), &dir.path().join("encrypted"), &raw] {
        read_anew(path)?;
    }
    let mut all = LOADS.map(|_| [const { Samples::new() }; 3]);
    let mut stepped = STEPS.map(|_| Samples::default());
    for round in 0..runs()? {
        for (load, samples) in LOADS.iter().zip(&mut all) {
            for nth in 0..disks.len() {
                let nth = (round + nth) % disks.len();
                samples[nth].add(drive(&disks[nth], load)?);
            }
        }
        for (load, samples) in STEPS.iter().zip(&mut stepped) {
            samples.add(drive(&disks[0], load)?);
        }
    }
    println!(
        "\ndisks: 1 GiB through the page cache, each present, {} runs in turn\n",
        runs()?
    );
    let row = |load: &Load, contenders: Vec<Samples>| Row {
        name: load.name,
        contenders,
    };
    let (mut rows, mut sealed) = (Vec::new(), Vec::new());
    for (load, [overlay, raw, encrypted]) in LOADS.iter().zip(all) {
        sealed.push(row(load, vec![encrypted, overlay.clone()]));
        rows.push(row(load, vec![overlay, raw]));
    }
    print(&["overlay", "raw file"], &rows);
    println!("\nthe overlay under AES-256-XTS\n");
    print(&["encrypted", "plain"], &sealed);

    let qcow2 = dir.path().join("qcow2");
    qemu(
        Command::new("qemu-img")
            .args(["convert", "-O", "qcow2"])
            .arg(&raw)
            .arg(&qcow2),
    )?;
    let mut rows = Vec::new();
    for (load, ours) in STEPS.iter().zip(stepped) {
        let mut contenders = vec![ours];
        for (format, image) in [("qcow2", &qcow2), ("raw", &raw)] {
            let mut samples = Samples::default();
            for _ in 0..runs()? {
                samples.add(peer(load, format, image)?);
            }
            contenders.push(samples);
        }
        rows.push(row(load, contenders));
    }
    println!("\nthe same disk by qemu-img bench (io_uring)\n");
    print(&["overlay", "qcow2", "raw file by qemu-img"], &rows);
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

/// A blank overlay that was written once.
fn hydrated(dir: &Path, name: &str, cipher: Option<Cipher>) -> Result<Arc<dyn Disk>> {
    let (data, map) = (open(&dir.join(name))?, open(&dir.join(format!("{name}.map")))?);
    overlay::create(&data, &map, 0, SIZE)?;
    let (data, map) = (Backing::new(data)?, Backing::new(map)?);
    let mut disk = Overlay::open(data, map, None)?;
    if let Some(cipher) = cipher {
        disk = disk.encrypted(Arc::new(cipher));
    }
    let block = noise(MIB as usize);
    for at in (0..SIZE).step_by(MIB as usize) {
        disk.write_at(&block, at)?;
    }
    disk.flush()?;
    Ok(Arc::new(disk))
}

/// The page cache holds what is read in larger pieces than what was written, whatever wrote it.
fn read_anew(path: &Path) -> Result<()> {
    drop_from_cache(path)?;
    std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
    Ok(())
}

/// Zeros would become holes of a converted image.
fn noise(len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    rand::fill(noise.as_mut_slice());
    noise
}

/// Thousands of requests a second. What was written is flushed in that time.
fn drive(disk: &Arc<dyn Disk>, load: &Load) -> Result<f64> {
    let pool = Pool::new(Arc::clone(disk), 8, &|builder, run| builder.spawn(run))?;
    let mut engine = engine::start(disk, &pool, 256)?;
    let mut memory = noise(load.depth * load.len);
    let slots: Vec<*mut u8> = memory.chunks_mut(load.len).map(<[u8]>::as_mut_ptr).collect();
    let begin = Instant::now();
    through(&mut *engine, &slots, load)?;
    if matches!(load.operation, Operation::Write) {
        disk.flush()?;
    }
    Ok(load.requests as f64 / begin.elapsed().as_secs_f64() / 1000.0)
}

/// What has ended makes room for as much, as a queue's worker drives it.
fn through(engine: &mut dyn Engine, slots: &[*mut u8], load: &Load) -> Result<()> {
    let (mut begun, mut done, mut ended) = (0, 0, Vec::new());
    let mut free: Vec<usize> = (0..slots.len()).collect();
    while done < load.requests {
        while begun < load.requests
            && let Some(slot) = free.pop()
        {
            let request = Request {
                token: slot,
                operation: load.operation,
                offset: (load.offset)(begun),
                len: load.len as u64,
                buffers: vec![Segment::new(slots[slot], load.len)],
            };
            // SAFETY: the memory outlives the engine's work: all that is submitted is reaped below.
            unsafe { engine.submit(request) };
            begun += 1;
        }
        engine.sleep()?;
        engine.reap(&mut ended);
        for completion in ended.drain(..) {
            completion.result?;
            free.push(completion.request.token);
            done += 1;
        }
    }
    Ok(())
}

fn qemu(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Thousands of requests a second. `qemu-img` flushes at the end.
fn peer(load: &Load, format: &str, image: &Path) -> Result<f64> {
    let mut bench = Command::new("qemu-img");
    bench.args(["bench", "-t", "writeback", "-i", "io_uring", "-f", format]);
    bench.args(["-c", &load.requests.to_string(), "-d", &load.depth.to_string()]);
    bench.args(["-s", &load.len.to_string(), "-S", &STEP.to_string()]);
    if matches!(load.operation, Operation::Write) {
        bench.args(["-w", "--flush-interval", &load.requests.to_string()]);
    }
    let said = qemu(bench.arg(image))?;
    let seconds = said
        .rsplit_once("completed in ")
        .and_then(|(_, rest)| rest.split(' ').next());
    let seconds: f64 = seconds.with_context(|| said.clone())?.parse()?;
    Ok(load.requests as f64 / seconds / 1000.0)
}
