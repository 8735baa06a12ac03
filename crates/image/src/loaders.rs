//! Which boot loader a disk has.

use std::rc::Rc;

use crate::entry::grub::{self, Script, Start};
use crate::entry::{BootEntry, Undecided, bls, extlinux};
use crate::esp::EfiSystem;
use crate::fs::{FsError, Kind, Volume};
use crate::partitions::RegionKind;
use crate::volumes::{Place, Volumes};

/// Bytes of an extlinux configuration.
const MAX_CONFIG: u64 = 1 << 20;

/// Where SYSLINUX and U-Boot look for their configuration.
const EXTLINUX: &[&str] = &[
    "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/extlinux.conf",
    "/boot/syslinux.cfg",
    "/extlinux/extlinux.conf",
    "/syslinux/extlinux.conf",
    "/syslinux/syslinux.cfg",
    "/extlinux.conf",
    "/syslinux.cfg",
];
/// The second stage of SYSLINUX, beside the configuration of the one that is installed.
const SYSLINUX_STAGE: &str = "ldlinux.sys";
const GRUB: &[&str] = &["/boot/grub", "/boot/grub2", "/grub", "/grub2"];
const BLS: &[&str] = &["/boot/loader", "/loader"];
/// In the boot sector of GRUB.
const GRUB_MARK: &[u8] = b"GRUB";

/// The boot loader that decides what a disk boots.
pub(crate) enum Loader {
    Efi(EfiLoader),
    Grub(Start),
    Extlinux(Place),
    Entries(Place),
    /// More than one, and nothing tells which is installed.
    Several(String, String),
    None,
}

/// The loader of an EFI system partition.
pub(crate) struct EfiLoader {
    part: usize,
    esp: EfiSystem,
}

pub(crate) fn find(volumes: &Volumes) -> Result<Loader, FsError> {
    for (part, volume) in volumes.open_volumes() {
        if volumes.parts[part].region.kind == RegionKind::EfiSystem
            && volume.is_fat()
            && let Some(esp) = EfiSystem::find(volume)?
        {
            return Ok(Loader::Efi(EfiLoader { part, esp }));
        }
    }
    match bios(volumes) {
        // A file system that cannot be read is a reason; a disk that cannot is an error.
        Err(FsError::Io(error)) => Err(FsError::Io(error)),
        Err(other) => Ok(Loader::Several(
            other.to_string(),
            "what cannot be read".to_owned(),
        )),
        Ok(loader) => Ok(loader),
    }
}

fn bios(volumes: &Volumes) -> Result<Loader, FsError> {
    let mut grubs = Vec::new();
    let mut extlinuxes = Vec::new();
    let mut installed = Vec::new();
    for (part, volume) in volumes.open_volumes() {
        let mut seen = Vec::new();
        // `/boot -> .`, as distributions have it on boot partitions, gives a file two names.
        let mut is_new = |volume: &Rc<Volume>, path: &str| {
            let resolved = volume.resolved(path)?;
            let new = !seen.contains(&resolved);
            seen.push(resolved);
            Ok::<_, FsError>(new)
        };
        let is_file = |path: &str| Ok::<_, FsError>(matches!(volume.kind(path)?, Some(Kind::File(_))));
        for directory in GRUB {
            if is_file(&format!("{directory}/grub.cfg"))? && is_new(volume, &format!("{directory}/grub.cfg"))?
            {
                grubs.push(Place {
                    part,
                    path: (*directory).to_owned(),
                });
            }
        }
        for path in EXTLINUX {
            if is_file(path)? && is_new(volume, path)? {
                let place = Place {
                    part,
                    path: (*path).to_owned(),
                };
                let directory = directory_of(path);
                if is_file(&format!("{directory}/{SYSLINUX_STAGE}"))? {
                    installed.push(place.clone());
                }
                extlinuxes.push(place);
            }
        }
    }
    let has_grub_mark = volumes
        .boot_sector
        .windows(GRUB_MARK.len())
        .any(|bytes| bytes == GRUB_MARK);
    if has_grub_mark && !grubs.is_empty() {
        extlinuxes.clear();
    } else if !installed.is_empty() {
        grubs.clear();
        extlinuxes = installed;
    }
    let all = || grubs.iter().chain(&extlinuxes).map(|place| name(volumes, place));
    Ok(match (&grubs[..], &extlinuxes[..]) {
        ([grub], []) => Loader::Grub(start(grub, Script::Configuration)),
        ([], [place]) => Loader::Extlinux(place.clone()),
        ([], []) => entries(volumes)?,
        _ => {
            let mut all = all();
            Loader::Several(all.next().unwrap_or_default(), all.next().unwrap_or_default())
        }
    })
}

fn start(directory: &Place, script: Script) -> Start {
    Start {
        platform: "pc",
        root: directory.part,
        prefix: directory.clone(),
        script,
    }
}

/// Boot Loader Specification entries without any other configuration.
fn entries(volumes: &Volumes) -> Result<Loader, FsError> {
    let mut found = Vec::new();
    for (part, volume) in volumes.open_volumes() {
        for directory in BLS {
            let names = volume.list(&format!("{directory}/entries"))?;
            if names.iter().any(|name| name.ends_with(".conf")) {
                found.push(Place {
                    part,
                    path: (*directory).to_owned(),
                });
            }
        }
    }
    let place = match &found[..] {
        [] => return Ok(Loader::None),
        [place] => place,
        [a, b, ..] => return Ok(Loader::Several(name(volumes, a), name(volumes, b))),
    };
    let Some(volume) = volumes.volume(place.part) else {
        return Ok(Loader::None);
    };
    // With an environment block they are GRUB's.
    for directory in GRUB {
        if volume.kind(&format!("{directory}/grubenv"))?.is_some() {
            let prefix = Place {
                part: place.part,
                path: (*directory).to_owned(),
            };
            return Ok(Loader::Grub(start(&prefix, Script::EntriesAlone)));
        }
    }
    Ok(Loader::Entries(place.clone()))
}

fn name(volumes: &Volumes, place: &Place) -> String {
    let region = volumes.parts.get(place.part).map_or("", |part| &part.region.name);
    format!("{} of {region}", place.path)
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Loader {
    /// What it boots by default.
    pub(crate) fn entry(&self, volumes: &Volumes) -> Result<BootEntry, Undecided> {
        match self {
            Loader::Efi(loader) => loader.entry(volumes),
            Loader::Grub(start) => grub::evaluate(volumes, start),
            Loader::Extlinux(place) => {
                let missing = || Undecided::because(&place.path, "a file that is gone");
                let volume = volumes.volume(place.part).ok_or_else(missing)?;
                let content = volume.read(&place.path, MAX_CONFIG)?.ok_or_else(missing)?;
                let text = String::from_utf8_lossy(&content);
                extlinux::parse(&text, place.part, directory_of(&place.path), &place.path)
            }
            Loader::Entries(place) => {
                let missing = || Undecided::because(&place.path, "no entry");
                let volume = volumes.volume(place.part).ok_or_else(missing)?;
                bls::read(volume, place.part, &place.path)?.ok_or_else(missing)
            }
            Loader::Several(a, b) => Err(Undecided::because("", format!("two configurations, {a} and {b}"))),
            Loader::None => Err(Undecided::because("", "no boot loader")),
        }
    }
}

impl EfiLoader {
    fn entry(&self, volumes: &Volumes) -> Result<BootEntry, Undecided> {
        let grub = self.esp.grub()?.map_err(Undecided::Because)?;
        let refused = |what: &str| Undecided::because(&grub.image, what);
        let memory = grub
            .memory_disk
            .map(|bytes| volumes.with_memory_disk(&grub.image, bytes));
        let volumes = memory.as_ref().unwrap_or(volumes);
        // The device in a prefix may be left out, or lack the disk: then it is the one that GRUB was loaded from.
        let (device, path) = match grub
            .prefix
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'))
        {
            Some((device, path)) => (device, path),
            None => ("", grub.prefix.as_str()),
        };
        let part = match device.strip_prefix(',') {
            _ if device.is_empty() => Some(self.part),
            Some(partition) => volumes.device(&format!("hd0,{partition}")),
            None => volumes.device(device),
        };
        let part = part.ok_or_else(|| refused("a GRUB whose configuration is on another disk"))?;
        let start = Start {
            platform: "efi",
            root: self.part,
            prefix: Place {
                part,
                path: path.to_owned(),
            },
            script: match grub.script {
                Some(text) => Script::Embedded {
                    image: grub.image,
                    text,
                },
                None => Script::Configuration,
            },
        };
        grub::evaluate(volumes, &start)
    }
}
