//! The EFI system partition: which loader UEFI firmware runs, and where a GRUB there looks for its configuration.
//!
//! Firmware without boot entries of its own runs `EFI/BOOT/BOOTX64.EFI` (UEFI specification, section 3.5.1.1).

use std::rc::Rc;

use crate::bytes::{le_u16, le_u32, le_u64};
use crate::fs::{FileRef, FsError, Volume};
use crate::road::Construct;

const DEFAULT_LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Shim starts this instead of GRUB where it was run from `EFI/BOOT`.
const FALLBACK: &str = "/EFI/BOOT/fbx64.efi";
const GRUB_OF_SHIM: &str = "grubx64.efi";
/// Lists the loader that shim's fallback starts.
const FALLBACK_LIST: &str = "BOOTX64.CSV";
/// Bytes of a loader. Unified kernel images have tens of MiB.
const MAX_LOADER: u64 = 1 << 30;
/// Sections of a PE file that are looked at.
const MAX_SECTIONS: usize = 96;
/// Bytes of GRUB's embedded modules that are read, and of what is kept of them.
const MAX_MODULES: u64 = 16 << 20;
const MAX_EMBEDDED: usize = 64 << 10;
/// Vendors' directories that are looked into.
const MAX_VENDORS: usize = 32;

/// An EFI system partition with a loader.
pub(crate) struct EfiSystem {
    pub(crate) volume: Rc<Volume>,
    loader: FileRef,
}

/// How a GRUB image begins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EmbeddedGrub {
    /// Path of the image.
    pub(crate) image: String,
    /// As embedded: "/EFI/debian", "(,gpt2)/boot/grub". Empty if there is none.
    pub(crate) prefix: String,
    /// A script that runs before the configuration is read.
    pub(crate) script: Option<String>,
    /// What GRUB calls `(memdisk)`: fonts, and in Debian 12 the script's configuration.
    pub(crate) memory_disk: Option<Vec<u8>>,
}

impl EfiSystem {
    /// None if there is no default loader in it.
    pub(crate) fn find(volume: &Rc<Volume>) -> Result<Option<EfiSystem>, FsError> {
        let loader = FileRef::find(volume, DEFAULT_LOADER, MAX_LOADER)?;
        Ok(loader.filter(|file| file.len() > 0).map(|loader| EfiSystem {
            volume: Rc::clone(volume),
            loader,
        }))
    }

    /// The GRUB that firmware comes to, directly or through shim.
    ///
    /// # Errors
    /// The inner error names another loader, or what is not understood about this one.
    pub(crate) fn grub(&self) -> Result<Result<EmbeddedGrub, Construct>, FsError> {
        let sections = sections(&self.loader)?;
        // ".vendor_cert" is longer than a section's name can be: it is cut, or behind the file's string table.
        let is_shim = |name: &str| name.starts_with(".vendor_") || name.starts_with('/');
        if sections.iter().any(|section| is_shim(&section.name)) {
            return self.grub_of_shim();
        }
        embedded(&self.loader, &sections)
    }

    fn grub_of_shim(&self) -> Result<Result<EmbeddedGrub, Construct>, FsError> {
        let mut found = Vec::new();
        let fallback = FileRef::find(&self.volume, FALLBACK, MAX_LOADER)?.is_some();
        let vendors = if fallback {
            self.volume.list("/EFI")?
        } else {
            vec!["BOOT".to_owned()]
        };
        if vendors.len() > MAX_VENDORS {
            let what = format!("more than {MAX_VENDORS} directories");
            return Ok(Err(Construct::new("/EFI", what)));
        }
        for vendor in vendors {
            let listed = || {
                FileRef::find(
                    &self.volume,
                    &format!("/EFI/{vendor}/{FALLBACK_LIST}"),
                    MAX_LOADER,
                )
            };
            if fallback && listed()?.is_none() {
                continue;
            }
            let path = format!("/EFI/{vendor}/{GRUB_OF_SHIM}");
            found.extend(FileRef::find(&self.volume, &path, MAX_LOADER)?);
        }
        match &found[..] {
            [grub] => embedded(grub, &sections(grub)?),
            [] => Ok(Err(Construct::new(DEFAULT_LOADER, "shim without a grubx64.efi"))),
            [a, b, ..] => Ok(Err(Construct::new(
                DEFAULT_LOADER,
                format!("shim that may start {} or {}", a.path, b.path),
            ))),
        }
    }
}

struct Section {
    name: String,
    /// In the file, bytes.
    start: u64,
    len: u64,
}

/// The sections of a PE file; none if it is no PE file (PE/COFF specification, sections 3 and 4).
fn sections(file: &FileRef) -> Result<Vec<Section>, FsError> {
    let mut dos = [0; 64];
    if file.read_at(0, &mut dos)? < dos.len() || !dos.starts_with(b"MZ") {
        return Ok(Vec::new());
    }
    let pe = u64::from(le_u32(&dos, 60));
    let mut coff = [0; 24];
    if file.read_at(pe, &mut coff)? < coff.len() || !coff.starts_with(b"PE\0\0") {
        return Ok(Vec::new());
    }
    let count = usize::from(le_u16(&coff, 6)).min(MAX_SECTIONS);
    let table = pe + 24 + u64::from(le_u16(&coff, 20));
    let mut headers = vec![0; count * 40];
    let got = file.read_at(table, &mut headers)?;
    let parse = |header: &[u8]| Section {
        name: text(&header[..8]),
        start: u64::from(le_u32(header, 20)),
        len: u64::from(le_u32(header, 16)),
    };
    Ok(headers[..got].chunks_exact(40).map(parse).collect())
}

fn embedded(file: &FileRef, sections: &[Section]) -> Result<Result<EmbeddedGrub, Construct>, FsError> {
    let named = |name: &str| sections.iter().find(|section| section.name == name);
    let refused = |what: &str| Ok(Err(Construct::new(&file.path, what)));
    if named(".sdmagic").is_some() {
        return refused("systemd-boot");
    }
    if named(".linux").is_some() {
        return refused("a unified kernel image");
    }
    let Some(modules) = named("mods") else {
        return refused("a loader that is not GRUB");
    };
    if modules.len > MAX_MODULES {
        return refused("a GRUB with more than 16 MiB of modules");
    }
    read_modules(file, modules)
}

/// Walks GRUB's embedded modules (`include/grub/kernel.h` of GRUB describes them).
fn read_modules(file: &FileRef, modules: &Section) -> Result<Result<EmbeddedGrub, Construct>, FsError> {
    const ELF: u32 = 0;
    const MEMORY_DISK: u32 = 1;
    const CONFIGURATION: u32 = 2;
    const PREFIX: u32 = 3;
    let damaged = || {
        Ok(Err(Construct::new(
            &file.path,
            "a GRUB whose embedded modules are damaged",
        )))
    };
    let mut info = [0; 24];
    if file.read_at(modules.start, &mut info)? < info.len() || !info.starts_with(b"mimg") {
        return damaged();
    }
    let end = le_u64(&info, 16).min(modules.len);
    let mut at = le_u64(&info, 8);
    let mut grub = EmbeddedGrub {
        image: file.path.clone(),
        ..EmbeddedGrub::default()
    };
    while at < end {
        let mut header = [0; 8];
        if file.read_at(modules.start.saturating_add(at), &mut header)? < header.len() {
            return damaged();
        }
        let (kind, size) = (le_u32(&header, 0), u64::from(le_u32(&header, 4)));
        if size < 8 || at + size > end {
            return damaged();
        }
        let body = || {
            let mut body = vec![0; (size as usize - 8).min(MAX_EMBEDDED)];
            file.read_at(modules.start + at + 8, &mut body).map(|got| {
                body.truncate(got);
                text(&body)
            })
        };
        match kind {
            ELF => {}
            CONFIGURATION if size as usize > MAX_EMBEDDED => return damaged(),
            CONFIGURATION => grub.script = Some(body()?),
            PREFIX => grub.prefix = body()?,
            MEMORY_DISK if grub.memory_disk.is_some() => return damaged(),
            MEMORY_DISK => {
                // At most MAX_MODULES.
                let mut bytes = vec![0; size as usize - 8];
                if file.read_at(modules.start + at + 8, &mut bytes)? < bytes.len() {
                    return damaged();
                }
                grub.memory_disk = Some(bytes);
            }
            // Public keys, and settings of Secure Boot, which does not exist here.
            _ => {}
        }
        at += size;
    }
    Ok(Ok(grub))
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
