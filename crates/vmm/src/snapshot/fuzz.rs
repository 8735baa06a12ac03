//! A hostile state file. Its checksums are right: otherwise nothing behind them would ever be reached.

use super::format::encode;
use super::{ABOUT, DEVICES, MACHINE, PAGES, Snapshot, VCPUS};
use crate::fuzz::Input;

pub(crate) fn state_file(input: &[u8]) {
    let _ = Snapshot::decode(input);
    let mut input = Input(input);
    let sections = [ABOUT, PAGES, VCPUS, MACHINE, DEVICES].map(|name| {
        let len = input.number(2) as usize;
        (name, input.bytes(len).to_vec())
    });
    if let Ok(snapshot) = Snapshot::decode(&encode(&sections)) {
        let about = &snapshot.about;
        assert_eq!(snapshot.checksums.len() as u64, about.memory_mib);
        let _ = snapshot.check(about.vcpus, about.memory_mib, &about.cpu);
    }
}
