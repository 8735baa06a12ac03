//! Disks as distributions and people lay them out, and which road boots each: kernel, command line and initrds are
//! compared with what the disk's own loader boots.

mod bls;
mod cloud;
mod efi;
mod extlinux;
mod grub;
mod oracle;

use std::rc::Rc;

use crate::entry::Undecided;
use crate::fs::Volume;
use crate::loaders::{self, Loader};
use crate::partitions::{Region, RegionKind};
use crate::volumes::{Content, Part, Volumes};

/// The UUID of a root or boot file system.
const UUID: &str = "8f1b9a3e-0000-4000-8000-000000000001";
const OTHER_UUID: &str = "8f1b9a3e-0000-4000-8000-000000000002";
const ESP_UUID: &str = "1234-ABCD";

/// A path and a file's content.
type File = (&'static str, Vec<u8>);

fn text(path: &'static str, content: &str) -> File {
    (path, content.as_bytes().to_vec())
}

fn empty(paths: &[&'static str]) -> Vec<File> {
    paths.iter().map(|path| (*path, Vec::new())).collect()
}

/// An environment block.
fn grubenv(path: &'static str, lines: &str) -> File {
    let mut content = format!("# GRUB Environment Block\n{lines}");
    content.extend(std::iter::repeat_n('#', 1024 - content.len()));
    text(path, &content)
}

enum Holds {
    Files(Vec<File>),
    /// As `Files`, with another UUID.
    Others(Vec<File>),
    Esp(Vec<File>),
    Other(&'static str),
    /// No file system, as in a BIOS boot partition.
    Nothing,
}

/// A disk with a GPT.
fn disk(parts: Vec<Holds>) -> Volumes {
    let volume = |files: Vec<File>, uuid| {
        let files = files
            .into_iter()
            .map(|(path, content)| (path.to_owned(), content))
            .collect();
        Content::Open(Rc::new(Volume::of_files(files, uuid)))
    };
    let parts = parts.into_iter().enumerate().map(|(i, holds)| {
        let (kind, content) = match holds {
            Holds::Files(files) => (RegionKind::Ordinary, volume(files, UUID)),
            Holds::Others(files) => (RegionKind::Ordinary, volume(files, OTHER_UUID)),
            Holds::Esp(files) => (RegionKind::EfiSystem, volume(files, ESP_UUID)),
            Holds::Other(name) => (RegionKind::Ordinary, Content::Unread(name.to_owned())),
            Holds::Nothing => (RegionKind::Ordinary, Content::Nothing),
        };
        let region = Region {
            name: format!("partition {}", i + 1),
            device: format!("hd0,gpt{}", i + 1),
            start: i as u64,
            len: 1,
            kind,
        };
        Part { region, content }
    });
    Volumes {
        parts: parts.collect(),
        boot_sector: Vec::new(),
    }
}

/// "KERNEL | COMMAND LINE | INITRDS", or by which road instead, and why.
fn road(volumes: &Volumes) -> String {
    let loader = loaders::find(volumes).unwrap();
    match (loader.entry(volumes), &loader) {
        (Ok(entry), _) => {
            let initrds: Vec<_> = entry.initrds.iter().map(|place| place.path.as_str()).collect();
            format!(
                "{} | {} | {}",
                entry.kernel.path,
                entry.cmdline,
                initrds.join(" ")
            )
        }
        (Err(Undecided::Because(because)), Loader::Efi(_)) => format!("firmware: {because}"),
        (Err(Undecided::Because(_)), Loader::None) => "no loader".to_owned(),
        (Err(Undecided::Because(because)), _) => format!("refused: {because}"),
        (Err(Undecided::Io(error)), _) => panic!("{error}"),
    }
}

/// One file system with these files.
fn one(files: Vec<File>) -> String {
    road(&disk(vec![Holds::Files(files)]))
}

/// Each layout's name, what it does and what it ought to do.
fn check(layouts: Vec<(&str, String, &str)>) {
    for (name, found, _) in &layouts {
        println!("FIGURE layout: {name}: {found}");
    }
    let wrong: Vec<String> = layouts
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(name, found, expected)| format!("{name}\n  found    {found}\n  expected {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
