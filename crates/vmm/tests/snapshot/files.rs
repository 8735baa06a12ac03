//! The two files of a snapshot, and what this process holds.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use hearth_vmm::machine::{Machine, Plan};
use hearth_vmm::snapshot::{Kind, MemorySource, Restore, Snapshot, Writeback, merge};

pub struct Files {
    pub state: File,
    pub memory: File,
}

impl Files {
    /// Of a paused machine.
    pub fn of(machine: &mut Machine, plan: &Plan, kind: Kind) -> Self {
        let files = Self {
            state: file(),
            memory: file(),
        };
        let (state, memory) = (&files.state, &files.memory);
        machine
            .snapshot(plan, kind, state, memory, Writeback::Early)
            .unwrap();
        files
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.state).unwrap()
    }

    pub fn restore(&self, verify: bool) -> Restore {
        let file = self.memory.try_clone().unwrap();
        Restore {
            snapshot: self.snapshot(),
            memory: MemorySource::File { file, verify },
            track: true,
        }
    }

    pub fn copy(&self) -> Self {
        let copy = |mut from: &File| {
            let mut to = file();
            from.seek(SeekFrom::Start(0)).unwrap();
            std::io::copy(&mut from, &mut to).unwrap();
            to
        };
        Self {
            state: copy(&self.state),
            memory: copy(&self.memory),
        }
    }

    pub fn merged_with(&self, diff: &Self) -> Self {
        let merged = self.copy();
        merge(
            &self.snapshot(),
            &diff.snapshot(),
            &diff.memory,
            &merged.memory,
            &merged.state,
        )
        .unwrap();
        merged
    }
}

pub fn file() -> File {
    tempfile::tempfile().unwrap()
}

/// That this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
