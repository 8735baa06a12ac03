//! A cgroup for each monitor, in whichever layout the host has: version 2's one tree, version 1's tree for each
//! controller, or some of each. `/proc/mounts` says it.
//!
//! | | limit | version 1 | version 2 |
//! |---|---|---|---|
//! | cpu | its vCPUs, and one CPU more for its devices and its control thread | `cpu.cfs_quota_us` | `cpu.max` |
//! | | a share by its vCPUs where CPUs are short | `cpu.shares` | `cpu.weight` |
//! | memory | the guest's, and [`OVERHEAD`] | `memory.limit_in_bytes` | `memory.max` |
//! | pids | [`TASKS`] | `pids.max` | `pids.max` |
//! | io | a share by its vCPUs, where the disk's scheduler gives shares ([`super::disk`]) | `blkio.bfq.weight` | `io.weight`, `io.bfq.weight` |
//! | cpuset | the CPUs that its vCPUs are pinned to, if they are | `cpuset.cpus` | `cpuset.cpus` |
//!
//! A controller that the host does not have, or does not delegate, is done without, and said so once.
//!
//! The groups are `hearth/<agent>/<instance>` below the root, and not below the agent's own group: version 2 does
//! not let a group have both processes and limited children, and what manages the agent as a service may end
//! all that is below its group when it restarts it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{cpus, write_setting};

const MIB: u64 = 1 << 20;
/// Bytes for the monitor itself, its page tables and KVM's, its pages of disks and their chunk maps (2 MiB each at most,
/// also of those that are attached later); besides 1/32 of the guest's memory, which is what the kernel may take at most to
/// translate it.
pub const OVERHEAD: u64 = 128 * MIB;
/// Threads: vCPUs, workers, and those that the kernel adds for KVM and io_uring.
pub const TASKS: u32 = 512;
const PERIOD_MICROS: u64 = 100_000;

/// What a monitor may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub vcpus: u8,
    /// Microseconds of CPU time in each tenth of a second.
    pub cpu_quota: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the largest file that it writes.
    pub file: u64,
}

impl Limits {
    /// For an instance of this shape.
    pub fn of(vcpus: u8, memory_mib: u64) -> Limits {
        let guest = memory_mib.saturating_mul(MIB);
        let memory = guest.saturating_add(guest / 32).saturating_add(OVERHEAD);
        Limits {
            vcpus,
            cpu_quota: (u64::from(vcpus) + 1) * PERIOD_MICROS,
            memory,
            // A snapshot's.
            file: memory,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One mounted tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    version: Version,
    root: PathBuf,
    /// By their names in version 2.
    controllers: Vec<&'static str>,
}

/// Names in version 2 and 1. `cpuacct` only counts.
const CONTROLLERS: [(&str, &str); 5] = [
    ("cpu", "cpu"),
    ("memory", "memory"),
    ("pids", "pids"),
    ("io", "blkio"),
    ("cpuset", "cpuset"),
];

/// One agent's place in all trees.
#[derive(Debug)]
pub struct Cgroups {
    trees: Vec<Tree>,
    /// Below a tree's root: of all agents, and of this one.
    place: (PathBuf, PathBuf),
}

/// One monitor's.
#[derive(Debug)]
pub struct Group {
    dirs: Vec<(Version, PathBuf)>,
}

impl Cgroups {
    /// Looks for the trees, makes this agent's place in them, and says in the log what cannot be limited.
    pub fn find(parent: &str, agent_dir: &Path, with_cpusets: bool) -> Cgroups {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let offered =
            |root: &Path| std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let mut trees = trees(&mounts, offered);
        for tree in &mut trees {
            tree.controllers.retain(|&name| with_cpusets || name != "cpuset");
        }
        trees.retain(|tree| !tree.controllers.is_empty());
        let tag = blake3::hash(agent_dir.as_os_str().as_encoded_bytes()).to_hex();
        let parent = PathBuf::from(parent.trim_matches('/'));
        let place = (parent.clone(), parent.join(&tag[..16]));
        for tree in &mut trees {
            if let Err(error) = tree.prepare(&place) {
                tracing::warn!(%error, "a cgroup hierarchy cannot be used");
                tree.controllers.clear();
            }
        }
        trees.retain(|tree| !tree.controllers.is_empty());
        let missing: Vec<&str> = CONTROLLERS
            .iter()
            .map(|(name, _)| *name)
            .filter(|&name| with_cpusets || name != "cpuset")
            .filter(|name| !trees.iter().any(|tree| tree.controllers.contains(name)))
            .collect();
        if trees.is_empty() {
            tracing::warn!(
                "no cgroup hierarchy is there, so that monitors are not limited: `mount -t cgroup2 none /sys/fs/cgroup`"
            );
        } else if !missing.is_empty() {
            tracing::warn!(
                missing = missing.join(" "),
                "monitors are not limited by these cgroup controllers, which the kernel lacks or does not delegate"
            );
        }
        if trees.iter().any(|tree| tree.version == Version::One) {
            tracing::info!("this host has cgroup version 1: monitors are limited as by version 2");
        }
        Cgroups { trees, place }
    }

    /// Makes an instance's group, or takes the one that is there, and sets its limits.
    ///
    /// # Errors
    /// The kernel refuses a group or a limit.
    pub fn make(&self, instance_id: &str, limits: &Limits, cpus: &[u16]) -> io::Result<Group> {
        let mut dirs = Vec::new();
        for tree in &self.trees {
            let dir = tree.root.join(&self.place.1).join(instance_id);
            make_dir(&dir)?;
            if tree.version == Version::One && tree.controllers.contains(&"cpuset") {
                inherit_cpuset(&dir)?;
            }
            for &controller in &tree.controllers {
                for (file, value) in settings(tree.version, controller, limits, cpus) {
                    match write_setting(&dir.join(file), &value) {
                        // The kernel lacks iocost, or the module bfq is not loaded.
                        Err(error) if controller == "io" => tracing::debug!(%error, "no share of io"),
                        set => set?,
                    }
                }
            }
            dirs.push((tree.version, dir));
        }
        Ok(Group { dirs })
    }

    /// The CPUs of this agent's groups are those that the fewest of its vCPUs are pinned to.
    ///
    /// # Errors
    /// The host's cannot be read, or cpusets are absent.
    pub fn least_used_cpus(&self, count: u8) -> io::Result<Vec<u16>> {
        let tree = self
            .trees
            .iter()
            .find(|tree| tree.controllers.contains(&"cpuset"))
            .ok_or_else(|| io::Error::other("vCPUs cannot be pinned: the host has no cpuset controller"))?;
        let place = tree.root.join(&self.place.1);
        let offered = std::fs::read_to_string(place.join(match tree.version {
            Version::One => "cpuset.cpus",
            Version::Two => "cpuset.cpus.effective",
        }))?;
        let mut used = Vec::new();
        for group in std::fs::read_dir(place)?.flatten() {
            let cpus = std::fs::read_to_string(group.path().join("cpuset.cpus"));
            used.extend(cpus::parse(&cpus.unwrap_or_default()));
        }
        Ok(cpus::least_used(&cpus::parse(&offered), &used, count))
    }

    /// Removes an instance's group; a group with processes stays.
    pub fn remove(&self, instance_id: &str) {
        for tree in &self.trees {
            let dir = tree.root.join(&self.place.1).join(instance_id);
            if let Err(error) = std::fs::remove_dir(&dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, dir = %dir.display(), "a cgroup stays");
            }
        }
    }

    /// Removes the groups that an earlier agent left without processes.
    pub fn sweep(&self) {
        for tree in &self.trees {
            let place = tree.root.join(&self.place.1);
            for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
                // Files cannot be removed this way, and groups with processes neither.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }

    /// Removes all groups of this agent, and the place of all agents if it was the last.
    pub fn remove_all(&self) {
        self.sweep();
        for tree in &self.trees {
            let _ = std::fs::remove_dir(tree.root.join(&self.place.1));
            let _ = std::fs::remove_dir(tree.root.join(&self.place.0));
        }
    }
}

impl Group {
    /// The directories: of each tree one.
    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|(_, dir)| dir.as_path())
    }

    /// Where a process writes `0` to join, in version 2.
    pub(super) fn process_files(&self) -> io::Result<Vec<File>> {
        self.of(Version::Two)
            .map(|dir| OpenOptions::new().write(true).open(dir.join("cgroup.procs")))
            .collect()
    }

    /// Moves the calling thread in, in version 1. Its children will be in from their first breath; and a thread
    /// that moves itself does not wait, as a process does, until all CPUs have passed a quiet moment.
    pub(super) fn move_thread(&self) -> io::Result<()> {
        self.of(Version::One)
            .try_for_each(|dir| write_setting(&dir.join("tasks"), "0"))
    }

    fn of(&self, version: Version) -> impl Iterator<Item = &Path> {
        self.dirs
            .iter()
            .filter(move |(of, _)| *of == version)
            .map(|(_, dir)| dir.as_path())
    }
}

impl Tree {
    /// Makes the agents' place. In version 2 each group must pass its controllers on; those that it does not
    /// have to pass on are forgotten.
    fn prepare(&mut self, place: &(PathBuf, PathBuf)) -> io::Result<()> {
        let levels = [PathBuf::new(), place.0.clone(), place.1.clone()].map(|level| self.root.join(level));
        for level in &levels {
            make_dir(level)?;
            match self.version {
                Version::One if self.controllers.contains(&"cpuset") => inherit_cpuset(level)?,
                Version::One => {}
                Version::Two => {
                    let passes_on = |name: &str| write_setting(&level.join("cgroup.subtree_control"), name);
                    self.controllers.retain(|name| {
                        let passed = passes_on(&format!("+{name}"));
                        if let Err(error) = &passed {
                            tracing::debug!(%error, "a cgroup controller is not delegated");
                        }
                        passed.is_ok()
                    });
                }
            }
        }
        Ok(())
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io::Error::new(
            error.kind(),
            format!("making {}: {error}", dir.display()),
        )),
        _ => Ok(()),
    }
}

/// Version 1's new cpusets have neither CPUs nor memory and take no process.
fn inherit_cpuset(dir: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (path, above) = (dir.join(file), dir.join("..").join(file));
        if std::fs::read_to_string(&path)?.trim().is_empty() {
            write_setting(&path, std::fs::read_to_string(above)?.trim())?;
        }
    }
    Ok(())
}

/// The trees that have any of our controllers. `offered` is the controllers of a version 2 root.
fn trees(mounts: &str, offered: impl Fn(&Path) -> String) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(root), Some(kind), Some(options)) = (fields.nth(1), fields.next(), fields.next()) else {
            continue;
        };
        let root = PathBuf::from(root);
        let (version, controllers) = match kind {
            "cgroup" => {
                let has = |name: &&str| options.split(',').any(|option| option == *name);
                let ours = CONTROLLERS.iter().filter(|(_, one)| has(one));
                (Version::One, ours.map(|(two, _)| *two).collect())
            }
            "cgroup2" => {
                let offered = offered(&root);
                let has = |name: &&str| offered.split_whitespace().any(|word| word == *name);
                let ours = CONTROLLERS.iter().filter(|(two, _)| has(two));
                (Version::Two, ours.map(|(two, _)| *two).collect())
            }
            _ => continue,
        };
        let tree = Tree {
            version,
            root,
            controllers,
        };
        // The same tree may be mounted at several places.
        let known = |other: &Tree| other.version == tree.version && other.controllers == tree.controllers;
        if !tree.controllers.is_empty() && !trees.iter().any(known) {
            trees.push(tree);
        }
    }
    trees
}

/// Files and what is written into them.
fn settings(
    version: Version,
    controller: &str,
    limits: &Limits,
    cpus: &[u16],
) -> Vec<(&'static str, String)> {
    let Limits {
        vcpus,
        cpu_quota,
        memory,
        ..
    } = *limits;
    let weight = 100 * u32::from(vcpus);
    match (controller, version) {
        ("cpu", Version::One) => vec![
            ("cpu.shares", (1024 * u32::from(vcpus)).to_string()),
            ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
            ("cpu.cfs_quota_us", cpu_quota.to_string()),
        ],
        ("cpu", Version::Two) => vec![
            ("cpu.weight", weight.to_string()),
            ("cpu.max", format!("{cpu_quota} {PERIOD_MICROS}")),
        ],
        ("memory", Version::One) => vec![("memory.limit_in_bytes", memory.to_string())],
        ("memory", Version::Two) => vec![("memory.max", memory.to_string())],
        ("pids", _) => vec![("pids.max", TASKS.to_string())],
        ("io", Version::One) => vec![("blkio.bfq.weight", weight.min(1000).to_string())],
        // What iocost heeds, and what the scheduler bfq does.
        ("io", Version::Two) => vec![
            ("io.weight", weight.to_string()),
            ("io.bfq.weight", weight.min(1000).to_string()),
        ],
        // Memory is for all: which part of it is near follows from the CPUs.
        ("cpuset", _) => vec![("cpuset.cpus", cpus::format(cpus))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
