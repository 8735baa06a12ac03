//! Files of a FAT file system in a region of a disk.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use fatfs::{Dir, FileSystem, FsOptions};

use super::{FsError, Kind, MAX_ENTRIES, MAX_PATH, too_large};
use crate::meter::SharedDisk;
use crate::partitions::Region;

/// Bytes that a file may have: FAT's own limit is 4 GiB.
const MAX_FILE: u64 = 1 << 30;
/// Bytes that are read at once where less is wanted.
const SECTOR: u64 = 512;
/// Bytes that are read of one directory. FAT admits 65,536 entries of 32 bytes (Microsoft's FAT specification, section 6),
/// and besides them its clusters' entries in the FAT are read. A directory whose clusters are a ring has no end.
const MAX_DIRECTORY: u64 = 65_536 * (32 + 4);

pub(super) struct FatFs {
    fs: FileSystem<View>,
    disk: SharedDisk,
    allowance: Allowance,
}

/// Bytes that may be read until it is set anew.
type Allowance = Rc<Cell<u64>>;

impl FatFs {
    pub(super) fn open(disk: &SharedDisk, region: &Region) -> Result<FatFs, FsError> {
        let allowance = Allowance::new(Cell::new(u64::MAX));
        let mut view = View {
            disk: Rc::clone(disk),
            allowance: Rc::clone(&allowance),
            start: region.start,
            len: region.len,
            position: 0,
            sector: vec![0; SECTOR as usize].into(),
            number: None,
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
            allowance,
        })
    }

    /// From here on so many directories are read through.
    fn walk(&self, directories: usize) {
        self.allowance.set(MAX_DIRECTORY * directories as u64);
    }

    /// From here on a file's content is read, which the disk's budget bounds.
    fn read(&self) {
        self.allowance.set(u64::MAX);
    }

    pub(super) fn uuid(&self) -> String {
        let id = self.fs.volume_id();
        format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
    }

    pub(super) fn label(&self) -> String {
        // As GRUB: the entry of the root directory, not the field of the boot sector.
        self.walk(1);
        let label = self.fs.read_volume_label_from_root_dir();
        label.ok().flatten().unwrap_or_default()
    }

    pub(super) fn kind(&self, path: &str) -> Result<Option<Kind>, FsError> {
        let Some((parent, name)) = self.parent(path)? else {
            return Ok(Some(Kind::Directory));
        };
        let Some(parent) = parent else { return Ok(None) };
        self.walk(1);
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
        self.walk(1);
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
        let file = self.open_file(path)?;
        let begin = content.len() as u64;
        file.take(len).read_to_end(content).map_err(failed)?;
        if content.len() as u64 - begin != len {
            return Err(FsError::Fat(format!("{path} is cut short")));
        }
        Ok(())
    }

    pub(super) fn read_at(&self, path: &str, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let mut file = self.open_file(path)?;
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

    fn open_file(&self, path: &str) -> Result<fatfs::File<'_, View>, FsError> {
        let path = trimmed(path);
        self.walk(path.split('/').count());
        let file = self.fs.root_dir().open_file(path).map_err(failed)?;
        self.read();
        Ok(file)
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
            self.walk(1);
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
    allowance: Allowance,
    start: u64,
    len: u64,
    position: u64,
    /// The sector that was read last, and its number: the reader of FAT takes a directory's entries field by field.
    sector: Box<[u8]>,
    number: Option<u64>,
}

impl View {
    /// The sector that the position is in, from the position on.
    fn sector(&mut self) -> io::Result<&[u8]> {
        let number = self.position / SECTOR;
        if self.number != Some(number) {
            self.number = None;
            let begin = number * SECTOR;
            let len = usize::try_from(SECTOR.min(self.len - begin)).unwrap_or(usize::MAX);
            let mut disk = self.disk.borrow_mut();
            disk.seek(SeekFrom::Start(self.start + begin))?;
            self.sector.fill(0);
            disk.read_exact(&mut self.sector[..len])?;
            self.number = Some(number);
        }
        let offset = usize::try_from(self.position % SECTOR).unwrap_or(usize::MAX);
        Ok(&self.sector[offset..])
    }
}

impl Read for View {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let allowed = self.allowance.get().checked_sub(wanted as u64);
        let left = allowed.ok_or_else(|| io::Error::other("a directory is longer than FAT admits"))?;
        self.allowance.set(left);
        if (wanted as u64) < SECTOR {
            let sector = self.sector()?;
            let got = wanted.min(sector.len());
            buf[..got].copy_from_slice(&sector[..got]);
            self.position += got as u64;
            return Ok(got);
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use fatfs::{FatType, FormatVolumeOptions, format_volume};

    use super::*;
    use crate::bytes::le_u16;
    use crate::find::INSPECTION_BUDGET;
    use crate::meter::MeteredDisk;
    use crate::partitions::RegionKind;

    /// A FAT16 disk whose directory `EFI` has one cluster, of deleted files, which its FAT chains to itself.
    fn ring() -> Vec<u8> {
        let mut disk = io::Cursor::new(vec![0; 8 << 20]);
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat16)
            .bytes_per_cluster(512);
        format_volume(&mut disk, options).unwrap();
        let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        fs.root_dir().create_dir("EFI").unwrap();
        fs.unmount().unwrap();
        let mut disk = disk.into_inner();
        let number = |at| usize::from(le_u16(&disk, at));
        let (reserved, fats, root_entries, fat) = (number(14), usize::from(disk[16]), number(17), number(22));
        let data = (reserved + fats * fat) * 512 + root_entries * 32;
        // Cluster 2, the first one.
        disk[reserved * 512 + 4..][..2].copy_from_slice(&[2, 0]);
        for entry in disk[data..data + 512].chunks_exact_mut(32) {
            entry[0] = 0xe5;
        }
        disk
    }

    #[test]
    fn a_directory_whose_clusters_are_a_ring_ends() {
        let image = ring();
        let region = Region {
            start: 0,
            len: image.len() as u64,
            name: "the disk".to_owned(),
            device: "hd0".to_owned(),
            kind: RegionKind::Ordinary,
        };
        let disk: SharedDisk = Rc::new(RefCell::new(MeteredDisk::new(
            io::Cursor::new(image),
            INSPECTION_BUDGET,
        )));
        let fs = FatFs::open(&disk, &region).unwrap();
        assert_eq!(fs.list("").unwrap(), ["EFI"]);
        for told in [
            fs.kind("/EFI/BOOT").map(drop),
            fs.list("/EFI").map(drop),
            fs.read_at("/EFI/BOOT/BOOTX64.EFI", 0, &mut [0; 8]).map(drop),
        ] {
            let error = told.unwrap_err().to_string();
            assert!(error.contains("a directory is longer than FAT admits"), "{error}");
        }
        assert_eq!(disk.borrow().exhausted(), None);
    }
}
