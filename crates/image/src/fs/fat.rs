//! Files of a FAT file system in a region of a disk.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use fatfs::{Dir, FileSystem, FsOptions};

use super::{FsError, Kind, MAX_ENTRIES, MAX_PATH, too_large};
use crate::meter::SharedDisk;
use crate::partitions::Region;

/// Bytes that a file may have: FAT's own limit is 4 GiB.
const MAX_FILE: u64 = 1 << 30;

pub(super) struct FatFs {
    fs: FileSystem<View>,
    disk: SharedDisk,
}

impl FatFs {
    pub(super) fn open(disk: &SharedDisk, region: &Region) -> Result<FatFs, FsError> {
        let mut view = View {
            disk: Rc::clone(disk),
            start: region.start,
            len: region.len,
            position: 0,
        };
        // Microsoft's FAT specification: a jump instruction, and the signature at the end of the first 512 bytes.
        let mut sector = [0; 512];
        match view.read_exact(&mut sector) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(FsError::Unknown),
            read => read?,
        }
        let jumps = sector[0] == 0xe9 || (sector[0] == 0xeb && sector[2] == 0x90);
        if !jumps || sector[510..] != [0x55, 0xaa] {
            return Err(FsError::Unknown);
        }
        view.seek(SeekFrom::Start(0))?;
        // What has a boot sector like FAT's and is not FAT (NTFS, exFAT) is refused here.
        let fs = FileSystem::new(view, FsOptions::new()).map_err(|_| FsError::Unknown)?;
        Ok(FatFs {
            fs,
            disk: Rc::clone(disk),
        })
    }

    pub(super) fn uuid(&self) -> String {
        let id = self.fs.volume_id();
        format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
    }

    pub(super) fn label(&self) -> String {
        // As GRUB: the entry of the root directory, not the field of the boot sector.
        let label = self.fs.read_volume_label_from_root_dir();
        label.ok().flatten().unwrap_or_default()
    }

    pub(super) fn kind(&self, path: &str) -> Result<Option<Kind>, FsError> {
        let Some((parent, name)) = self.parent(path)? else {
            return Ok(Some(Kind::Directory));
        };
        let Some(parent) = parent else { return Ok(None) };
        for (i, entry) in parent.iter().enumerate() {
            let entry = entry.map_err(failed)?;
            if entry.file_name().eq_ignore_ascii_case(name) {
                return Ok(Some(if entry.is_dir() {
                    Kind::Directory
                } else {
                    Kind::File(entry.len())
                }));
            }
            limit(i, path)?;
        }
        Ok(None)
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let Some(dir) = self.directory(path)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for (i, entry) in dir.iter().enumerate() {
            let name = entry.map_err(failed)?.file_name();
            if name != "." && name != ".." {
                names.push(name);
            }
            limit(i, path)?;
        }
        Ok(names)
    }

    pub(super) fn append(&self, path: &str, content: &mut Vec<u8>) -> Result<(), FsError> {
        let Some(Kind::File(len)) = self.kind(path)? else {
            return Err(FsError::Fat(format!("{path} is gone")));
        };
        if len > MAX_FILE {
            return Err(too_large(path, len, MAX_FILE));
        }
        self.disk.borrow_mut().charge(len)?;
        let file = self.fs.root_dir().open_file(trimmed(path)).map_err(failed)?;
        let begin = content.len() as u64;
        file.take(len).read_to_end(content).map_err(failed)?;
        if content.len() as u64 - begin != len {
            return Err(FsError::Fat(format!("{path} is cut short")));
        }
        Ok(())
    }

    pub(super) fn read_at(&self, path: &str, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let mut file = self.fs.root_dir().open_file(trimmed(path)).map_err(failed)?;
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
        let mut done = 0;
        while done < buf.len() {
            match file.read(&mut buf[done..]).map_err(failed)? {
                0 => break,
                got => done += got,
            }
        }
        Ok(done)
    }

    /// The directory that a path's last name is in, if there is one, and the name. None for the root.
    #[allow(clippy::type_complexity)]
    fn parent<'a>(&self, path: &'a str) -> Result<Option<(Option<Dir<'_, View>>, &'a str)>, FsError> {
        let path = trimmed(path);
        if path.is_empty() {
            return Ok(None);
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Some((self.directory(parent)?, name)))
    }

    fn directory(&self, path: &str) -> Result<Option<Dir<'_, View>>, FsError> {
        let mut dir = self.fs.root_dir();
        if path.len() > MAX_PATH {
            return Ok(None);
        }
        for name in path.split('/').filter(|name| !name.is_empty()) {
            dir = match dir.open_dir(name) {
                Ok(below) => below,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                // A file in the middle of a path.
                Err(e) if e.to_string().contains("directory") => return Ok(None),
                Err(e) => return Err(failed(e)),
            };
        }
        Ok(Some(dir))
    }
}

fn trimmed(path: &str) -> &str {
    path.trim_matches('/')
}

fn limit(entries: usize, path: &str) -> Result<(), FsError> {
    if entries < MAX_ENTRIES {
        return Ok(());
    }
    Err(FsError::TooManyEntries {
        path: path.to_owned(),
        limit: MAX_ENTRIES,
    })
}

fn failed(error: io::Error) -> FsError {
    FsError::Fat(error.to_string())
}

/// A region as a disk of its own. Nothing is written to it.
struct View {
    disk: SharedDisk,
    start: u64,
    len: u64,
    position: u64,
}

impl Read for View {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let mut disk = self.disk.borrow_mut();
        disk.seek(SeekFrom::Start(self.start + self.position))?;
        let got = disk.read(&mut buf[..wanted])?;
        self.position += got as u64;
        Ok(got)
    }
}

impl Seek for View {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let target = match position {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Write for View {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
