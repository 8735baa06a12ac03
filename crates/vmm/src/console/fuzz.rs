//! The ring file's reader and next writer, before a hostile file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::CAPACITY;
use super::ring::{Ring, read};

pub(crate) fn ring(input: &[u8]) {
    let file = File::from(memfd_create("ring", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(input, 0).unwrap();
    assert!(read(&file).unwrap().len() <= CAPACITY);
    let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
    ring.append(b"more").unwrap();
    let mut piece = [0; 64];
    for position in [0, ring.oldest(), u64::MAX] {
        assert!(ring.read_at(position, &mut piece) <= piece.len());
    }
    assert!(read(&file).unwrap().ends_with(b"more"));
}
