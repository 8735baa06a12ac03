//! Fuzz targets: hostile kernels, boot loaders' configurations, disks. `scripts/fuzz` runs them; the tests here,
//! on the corpus only.

use std::io::Cursor;

use crate::entry::{bls, extlinux, grub};
use crate::partitions::{TableError, regions};
use crate::{kernel, sniff};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("kernel_image", kernel_image),
    ("extlinux", extlinux_configuration),
    ("boot_loader_entry", boot_loader_entry),
    ("grub_configuration", grub_configuration),
    ("partition_table", partition_table),
    ("packed_disk", packed_disk),
];

fn kernel_image(input: &[u8]) {
    // How an unpacked kernel may end is the caller's promise to the monitor: an ELF file for x86-64.
    if let Ok(elf) = kernel::unpack(input.to_vec()) {
        assert!(elf.starts_with(b"\x7fELF\x02\x01"));
    }
}

fn extlinux_configuration(input: &[u8]) {
    let _ = extlinux::parse(
        &String::from_utf8_lossy(input),
        0,
        "/boot/extlinux",
        "extlinux.conf",
    );
}

/// The first line is the entry's file name.
fn boot_loader_entry(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let entries: Vec<_> = rest
        .split("\0")
        .filter_map(|entry| bls::parse(name, entry))
        .collect();
    if !entries.is_empty() {
        let _ = bls::choose(entries, bls::loader_default(rest), 0, "/loader/entries");
    }
}

/// The environment block is behind the first NUL.
fn grub_configuration(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let configuration = parts.next().unwrap_or_default();
    grub::fuzz(configuration, parts.next().unwrap_or_default());
}

fn partition_table(input: &[u8]) {
    let mut disk = Cursor::new(input.to_vec());
    let _ = sniff(&mut disk);
    let regions = match regions(&mut disk) {
        Err(TableError::TooMany | TableError::SectorSize | TableError::BrokenGpt) => return,
        regions => regions.unwrap(),
    };
    for region in regions {
        let end = region.start.checked_add(region.len).unwrap();
        assert!(end <= input.len() as u64, "{region:?} is not on the disk");
        crate::fs::has_ext_magic(&mut disk, region.start).unwrap();
    }
}

struct Pieces(u64);

impl crate::Sink for Pieces {
    fn take(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        assert!(offset >= self.0 && data.len() <= crate::PIECE);
        self.0 = offset + data.len() as u64;
        Ok(())
    }
}

fn packed_disk(input: &[u8]) {
    let file = rustix::fs::memfd_create("packed", rustix::fs::MemfdFlags::empty()).unwrap();
    let file = std::fs::File::from(file);
    std::os::unix::fs::FileExt::write_all_at(&file, input, 0).unwrap();
    let mut pieces = Pieces(0);
    if let Ok(size) = crate::unpack(file, 1 << 28, &mut pieces) {
        assert!(pieces.0 <= size);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
