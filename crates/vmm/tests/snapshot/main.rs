//! Pausing, saving and restoring machines under real KVM, with a guest that takes milliseconds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod guest;
mod merging;
#[path = "../boot/guest.rs"]
mod monitor;
mod pages;
mod pause;
mod served;

use std::os::unix::fs::FileExt;
use std::time::Instant;

use files::Files;
use guest::{PAGES, plan, restore, start};
use hearth_vmm::machine::BuildError;
use hearth_vmm::snapshot::{Kind, Snapshot, SnapshotError, Writeback, merge};

const FULL: Kind = Kind::Full { track: true };

#[test]
fn two_clones_count_on_from_where_the_snapshot_was_made() {
    let Some(plan) = plan("two_clones", 2) else { return };
    let (mut machine, console) = start(&plan);
    console.wait_for(40, 0);
    machine.pause().unwrap();
    let counted = console.len();
    let files = Files::of(&mut machine, &plan, FULL);
    machine.resume();
    console.wait_for(30, counted);
    machine.stop();
    console.assert_counts_on_from(0);

    let from = files.restore(true);
    let begun = Instant::now();
    let (one, first) = restore(&plan, &from);
    eprintln!("restored and verified in {:?}", begun.elapsed());
    let (two, second) = restore(&plan, &files.restore(false));
    first.wait_for(30, 0);
    second.wait_for(30, 0);
    one.stop();
    two.stop();
    first.assert_counts_on_from(counted);
    second.assert_counts_on_from(counted);
}

#[test]
fn a_snapshot_of_a_clone_and_diffs_of_both() {
    let Some(plan) = plan("a_snapshot_of_a_clone", 1) else {
        return;
    };
    let (mut machine, console) = start(&plan);
    console.wait_for(5, 0);
    machine.pause().unwrap();
    let error = machine.snapshot(&plan, Kind::Diff, &files::file(), &files::file(), Writeback::Late);
    assert!(matches!(error, Err(SnapshotError::NotTracked)));
    let full = Files::of(&mut machine, &plan, FULL);
    machine.resume();

    console.wait_for(20, console.len());
    machine.pause().unwrap();
    let counted = console.len();
    let diff = Files::of(&mut machine, &plan, Kind::Diff);
    machine.resume();
    let written = diff.snapshot().pages.len();
    assert!((20..2 * PAGES).contains(&written), "{written} pages in the diff");

    console.wait_for(20, console.len());
    machine.pause().unwrap();
    let counted_last = console.len();
    let last = Files::of(&mut machine, &plan, Kind::Diff);
    machine.stop();

    // A diff alone is no machine, and goes onto its own base only.
    assert!(matches!(
        diff.snapshot().check(1, 64, &plan.cpu),
        Err(SnapshotError::Diff { .. })
    ));
    let wrong = full.copy();
    let refused = merge(
        &full.snapshot(),
        &last.snapshot(),
        &last.memory,
        &wrong.memory,
        &wrong.state,
    );
    assert!(matches!(refused, Err(SnapshotError::WrongBase { .. })));

    let merged = full.merged_with(&diff);
    let (mut clone, console) = restore(&plan, &merged.restore(true));
    console.wait_for(20, 0);
    clone.pause().unwrap();
    let counted_clone = counted + console.len();
    let of_clone = Files::of(&mut clone, &plan, Kind::Diff);
    clone.stop();
    console.assert_counts_on_from(counted);

    for (base, diff, counted) in [
        (&merged, &last, counted_last),
        (&merged, &of_clone, counted_clone),
    ] {
        let (machine, console) = restore(&plan, &base.merged_with(diff).restore(true));
        console.wait_for(20, 0);
        machine.stop();
        console.assert_counts_on_from(counted);
    }
}

#[test]
fn a_flipped_bit_in_memory_is_found_and_another_shape_refused() {
    let Some(mut plan) = plan("a_flipped_bit", 1) else {
        return;
    };
    let (mut machine, console) = start(&plan);
    console.wait_for(1, 0);
    machine.pause().unwrap();
    let files = Files::of(&mut machine, &plan, Kind::Full { track: false });
    let untracked = machine.snapshot(&plan, Kind::Diff, &files::file(), &files::file(), Writeback::Late);
    assert!(matches!(untracked, Err(SnapshotError::NotTracked)));
    machine.stop();

    let refusal = |plan: &_, files: &Files| match guest::try_restore(plan, &files.restore(true)) {
        Err(BuildError::Snapshot(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was restored"),
    };
    let mut byte = [0];
    files.memory.read_exact_at(&mut byte, 0x30_0000).unwrap();
    files.memory.write_all_at(&[byte[0] ^ 0x10], 0x30_0000).unwrap();
    let error = refusal(&plan, &files);
    assert!(
        matches!(error, SnapshotError::DamagedMemory { at: 0x30_0000 }),
        "{error}"
    );
    files.memory.write_all_at(&byte, 0x30_0000).unwrap();
    files.memory.set_len(63 << 20).unwrap();
    assert!(matches!(refusal(&plan, &files), SnapshotError::Cut { .. }));
    files.memory.set_len(64 << 20).unwrap();
    plan.vcpus = 2;
    let error = refusal(&plan, &files);
    assert!(error.to_string().contains("1 vCPUs and 64 MiB"), "{error}");
}

#[test]
fn a_state_file_that_is_cut_or_flipped_anywhere_is_refused() {
    let Some(plan) = plan("a_state_file", 1) else {
        return;
    };
    let (mut machine, console) = start(&plan);
    console.wait_for(1, 0);
    machine.pause().unwrap();
    let files = Files::of(&mut machine, &plan, FULL);
    machine.stop();
    let mut bytes = vec![0; files.state.metadata().unwrap().len() as usize];
    files.state.read_exact_at(&mut bytes, 0).unwrap();
    eprintln!("a state file of {} bytes", bytes.len());
    Snapshot::decode(&bytes).unwrap();
    for at in (0..bytes.len()).step_by(97).chain(0..64) {
        assert!(Snapshot::decode(&bytes[..at]).is_err());
        bytes[at] ^= 1 << (at % 8);
        assert!(Snapshot::decode(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn a_hundred_snapshots_and_restores_leave_nothing_behind() {
    const CYCLES: usize = 100;
    let Some(mut plan) = plan("a_hundred_snapshots", 2) else {
        return;
    };
    plan.memory_mib = 32;
    let (mut machine, console) = start(&plan);
    let mut before = None;
    for cycle in 0..CYCLES {
        console.wait_for(1, console.len());
        machine.pause().unwrap();
        let counted = console.len();
        let files = Files::of(&mut machine, &plan, FULL);
        machine.stop();
        console.assert_counts_on_from(0);
        machine = guest::restore_onto(&plan, &console, &files.restore(false));
        console.wait_for(1, counted);
        drop(files);
        if cycle == CYCLES / 4 {
            before = Some((files::descriptors(), files::resident_kib()));
        }
    }
    let (descriptors, resident) = before.unwrap();
    eprintln!(
        "{resident} KiB after a quarter, {} at the end",
        files::resident_kib()
    );
    assert_eq!(files::descriptors(), descriptors);
    assert!(files::resident_kib() < resident + 2048, "it was {resident} KiB");
    machine.stop();
}
