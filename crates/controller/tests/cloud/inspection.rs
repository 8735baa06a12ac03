//! Hostile disks: what their inspection may take, and what they find that have taken the inspector over.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_api::Client;
use hearth_api::client::Introduction;
use tempfile::TempDir;

use crate::support::{Hearthd, SOON, code, register};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// An ext4 file system of 4 MiB without checksums, with extlinux and the files given: name, content, length.
fn ext4(dir: &Path, files: &[(&str, &[u8], u64)]) -> Option<PathBuf> {
    let root = dir.join("hostile");
    std::fs::create_dir_all(root.join("extlinux")).unwrap();
    let config = "label l\n kernel /kernel\n initrd /initrd\n";
    std::fs::write(root.join("extlinux/extlinux.conf"), config).unwrap();
    for (name, content, len) in files {
        std::fs::write(root.join(name), content).unwrap();
        File::options()
            .write(true)
            .open(root.join(name))
            .unwrap()
            .set_len(*len)
            .unwrap();
    }
    let image = dir.join("hostile.raw");
    let made = Command::new("mke2fs")
        .env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
        .args([
            "-q",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "^has_journal,^metadata_csum",
            "-d",
        ])
        .args([&root, &image])
        .arg("4M")
        .stdout(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a test of hearthd: mke2fs is absent; install e2fsprogs");
        return None;
    }
    Some(image)
}

/// A disk that keeps its reader busy for years without a read: the extents of the configuration file are a tree of
/// five levels in which all entries of a node lead to the same next node, and the last has extents of no blocks.
fn endless(dir: &Path) -> Option<Vec<u8>> {
    let image = ext4(dir, &[])?;
    let entries = (BLOCK as u16 - 12) / 12;
    let header = |entries: u16, max: u16, depth: u16| {
        [0xf30a, entries, max, depth, 0, 0]
            .iter()
            .flat_map(|half: &u16| half.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let index = |block: u64| [0u32, block as u32, 0].map(u32::to_le_bytes).concat();
    let file = File::options().write(true).open(&image).unwrap();
    // The last blocks of the file system are free.
    let first = 4 * MIB / BLOCK - 8;
    for level in 0..5 {
        let mut node = header(entries, entries, 4 - level);
        for _ in 0..entries {
            match level {
                4 => node.extend([0; 12]),
                _ => node.extend(index(first + u64::from(level) + 1)),
            }
        }
        file.write_all_at(&node, (first + u64::from(level)) * BLOCK)
            .unwrap();
    }
    let root: Vec<u8> = [header(1, 4, 5), index(first)].concat();
    for (n, word) in root.chunks(4).enumerate() {
        let word = u32::from_le_bytes(word.try_into().unwrap());
        let request = format!("set_inode_field /extlinux/extlinux.conf block[{n}] {word}");
        let done = Command::new("debugfs")
            .env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
            .args(["-w", "-R", &request])
            .arg(&image)
            .output()
            .unwrap();
        assert!(done.status.success());
    }
    Some(std::fs::read(image).unwrap())
}

/// Parents of all processes.
fn parents() -> BTreeMap<u32, u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        // A process that nobody has waited for has ended.
        let alive = fields.next()? != "Z";
        let parent = fields.next()?.parse().ok()?;
        alive.then_some((pid, parent))
    })
    .collect()
}

fn child_of(pid: u32) -> Option<u32> {
    parents()
        .into_iter()
        .find(|(_, parent)| *parent == pid)
        .map(|(child, _)| child)
}

fn wait_for<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(begin.elapsed() < SOON, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The inspector that `hearthd` has running.
fn inspector_of(hearthd: u32) -> u32 {
    wait_for("an inspector", || child_of(child_of(hearthd)?))
}

fn ended(pid: u32) {
    let begin = Instant::now();
    wait_for("the inspector's end", || {
        (!parents().contains_key(&pid)).then_some(())
    });
    eprintln!("the inspector has ended after {:?}", begin.elapsed());
    // Its processor time would end it later.
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_image_is_inspected_in_little_memory() {
    let mut hearthd = Hearthd::start();
    let elf: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
    let files = [("kernel", elf, 256 * MIB), ("initrd", b"070701", 512 * MIB)];
    let Some(image) = ext4(hearthd.dir.path(), &files) else {
        return;
    };
    let image = std::fs::read(image).unwrap();
    sparse_is_cheap(&hearthd, &image).await;
    // As a user of its own: the one that owns the data.
    hearthd.kill();
    let owned = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(hearthd.dir.path())
        .status();
    if !owned.unwrap().success() {
        eprintln!("SKIPPED: a test of hearthd: its data cannot be given to another user; be root");
        return;
    }
    hearthd.spawn();
    sparse_is_cheap(&hearthd, &image).await;
    assert!(!hearthd.log().contains("without namespaces"));
}

async fn sparse_is_cheap(hearthd: &Hearthd, image: &[u8]) {
    // Not by the ordinary way, which refuses a socket of a stranger below /tmp.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", hearthd.socket().display()));
    let channel = endpoint.unwrap().connect().await.unwrap();
    let client = Client::new(Introduction::default().over(channel));
    let name = format!("sparse-{}", hearthd.pid());
    std::fs::write(hearthd.dir.path().join("log"), "").unwrap();
    register(&client, &name, image).await.unwrap();
    let log = hearthd.log();
    let figure = |name: &str| -> u64 {
        let (_, behind) = log
            .split_once(&format!("{name}="))
            .expect("the log has no figures");
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        behind[..end].parse().unwrap()
    };
    let (peak, cpu) = (figure("peak_kib"), figure("cpu_ms"));
    eprintln!("{peak} KiB, {cpu} ms of processor time");
    assert!(peak < 64 << 10 && cpu < 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_disk_is_refused_and_ends_with_its_client() {
    let mut hearthd = Hearthd::start();
    let Some(disk) = endless(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    let begin = Instant::now();
    let status = register(&client, "endless", &disk).await.unwrap_err();
    eprintln!("{:?}: {}", begin.elapsed(), status.message());
    assert_eq!(code(&status), "InvalidParameterValue");
    assert!(
        status
            .message()
            .contains("took more than 64 MiB of memory, 5 seconds")
    );
    assert!(status.message().contains("e2fsck"));
    // The file is removed behind the answer.
    let nothing_is_kept = |hearthd: &Hearthd| {
        tokio::task::block_in_place(|| {
            wait_for("the upload's end", || hearthd.images().is_empty().then_some(()));
        });
    };
    nothing_is_kept(&hearthd);

    // The client leaves.
    let call = tokio::spawn({
        let (client, disk) = (client.clone(), disk.clone());
        async move { register(&client, "left", &disk).await }
    });
    let inspector = tokio::task::block_in_place(|| inspector_of(hearthd.pid()));
    call.abort();
    tokio::task::block_in_place(|| ended(inspector));
    nothing_is_kept(&hearthd);

    // `hearthd` is killed.
    let call = tokio::spawn(async move { register(&client, "killed", &disk).await });
    let inspector = tokio::task::block_in_place(|| inspector_of(hearthd.pid()));
    hearthd.kill();
    tokio::task::block_in_place(|| ended(inspector));
    call.abort();
}

#[test]
fn an_inspector_ends_with_its_warden() {
    let mut warden = Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .args(["inspect-image", "--attempt", "burn-cpu", "--filtered"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let inspector = wait_for("an inspector", || child_of(warden.id()));
    // It is in jail when it is alone in there.
    wait_for("the jail", || {
        let status = std::fs::read_to_string(format!("/proc/{inspector}/status")).ok()?;
        status.contains("Seccomp:\t2").then_some(())
    });
    warden.kill().unwrap();
    warden.wait().unwrap();
    ended(inspector);
}

/// What came of each attempt: without the filter and with it.
fn probe(command: &mut Command) -> BTreeMap<String, (String, String)> {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{text}");
    let rows = text.lines().skip(1).map(|line| {
        let (name, rest) = line.split_at(20);
        let (bare, filtered) = rest.split_at(55);
        (
            name.trim().to_owned(),
            (bare.trim().to_owned(), filtered.trim().to_owned()),
        )
    });
    rows.collect()
}

fn walls(command: &mut Command, namespaces: bool) {
    let table = probe(command);
    assert_eq!(table.len(), 18);
    for (name, (bare, filtered)) in &table {
        match name.as_str() {
            "panic" => assert_eq!(filtered, "caught"),
            "take-memory" => assert!(filtered.contains("out of memory"), "{filtered}"),
            _ => assert_eq!(filtered, "killed by SIGSYS", "{name}"),
        }
        let walls: &[&str] = match name.as_str() {
            "open-file" | "write-file" | "list-root" | "climb" | "see-processes" => {
                &["Too many open files", "No such file", "Read-only"]
            }
            "write-disk" => &["Bad file descriptor"],
            "fork" => &["temporarily unavailable"],
            "inet-socket" | "unix-socket" => &["Too many open files", "unreachable"],
            "mount" | "become-root" => &["not permitted", "Invalid argument"],
            "signal-processes" if namespaces => &["No such process"],
            "trace" if namespaces => &["No such process", "not permitted"],
            "take-memory" => &["out of memory"],
            _ => continue,
        };
        assert!(walls.iter().any(|wall| bare.contains(wall)), "{name}: {bare}");
    }
}

#[test]
fn a_disk_that_has_taken_its_inspector_over_finds_nothing() {
    let hearthd = env!("CARGO_BIN_EXE_hearthd");
    walls(Command::new(hearthd).arg("probe-inspection"), true);

    // As an ordinary user, who may not reach the directory of the build.
    let dir = TempDir::with_prefix("hearthd-").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("hearthd");
    std::fs::copy(hearthd, &copy).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a test of hearthd: it becomes another user; be root");
        return;
    }
    let nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command
    };
    walls(nobody().arg(&copy).arg("probe-inspection"), true);

    // Where the host refuses more user namespaces than the two that this makes.
    let script = "echo 1 > /proc/sys/user/max_user_namespaces && exec unshare -U --map-user=1000 \"$0\" probe-inspection";
    walls(
        nobody().args(["unshare", "-Ur", "sh", "-c", script]).arg(&copy),
        false,
    );
}
