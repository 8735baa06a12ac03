//! `hearth-vmm merge-snapshot`.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Output};

use crate::files::Files;
use crate::guest::{plan, restore, start};
use crate::{FULL, Kind};

fn put(files: &Files, directory: &Path, name: &str) {
    for (mut from, part) in [(&files.state, "state"), (&files.memory, "memory")] {
        let mut to = File::create(directory.join(format!("{name}.{part}"))).unwrap();
        from.seek(SeekFrom::Start(0)).unwrap();
        std::io::copy(&mut from, &mut to).unwrap();
    }
}

fn merge(directory: &Path, base: &str, diffs: &[&str], result: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth-vmm"));
    command.current_dir(directory).arg("merge-snapshot");
    let mut pair = |option: &str, name: &str| {
        for part in ["state", "memory"] {
            command.arg(format!("--{option}{part}={name}.{part}"));
        }
    };
    pair("base-", base);
    diffs.iter().for_each(|diff| pair("diff-", diff));
    pair("", result);
    command.output().unwrap()
}

#[test]
fn diffs_and_their_base_become_one_snapshot() {
    let Some(plan) = plan("diffs_and_their_base", 1) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mut machine, console) = start(&plan);
    let mut counted = 0;
    for (name, kind) in [("full", FULL), ("one", Kind::Diff), ("two", Kind::Diff)] {
        console.wait_for(20, console.len());
        machine.pause().unwrap();
        counted = console.len();
        put(&Files::of(&mut machine, &plan, kind), directory, name);
        machine.resume();
    }
    machine.stop();

    let refused = |base, diffs: &[&str], result, why: &str| {
        let output = merge(directory, base, diffs, result);
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && words.contains(why), "{words}");
    };
    refused(
        "full",
        &["two"],
        "merged",
        "merging two.state: the diff belongs to snapshot",
    );
    refused("full", &["full"], "merged", "full.state");
    refused("full", &["none"], "merged", "opening none.state");
    refused("full", &["one"], "two", "two.state exists already");
    // Nothing is left of what failed.
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 6);

    let output = merge(directory, "full", &["one", "two"], "merged");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 8);
    let open = |part: &str| File::open(directory.join(format!("merged.{part}"))).unwrap();
    let merged = Files {
        state: open("state"),
        memory: open("memory"),
    };
    let (machine, console) = restore(&plan, &merged.restore(true));
    console.wait_for(30, 0);
    machine.stop();
    console.assert_counts_on_from(counted);
}
