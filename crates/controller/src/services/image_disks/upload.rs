//! Receives a disk image into a sparse file of its own, which is gone when it is dropped, or stays while it is not whole
//! ([`super::partial`]). Some of the file system stays free: the database is usually on the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hearth_api::{ApiError, ErrorCode};
use hearth_image::{DiskHasher, Extents, is_zero};
use prost::bytes::Bytes;
use tokio::runtime::Handle;

/// Zeros of at least this many bytes, at a multiple of it, become holes.
const HOLE: usize = 4096;
/// Bytes of the file system that uploads leave free, or a twentieth of a smaller file system.
const RESERVE: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error(transparent)]
    Refused(#[from] ApiError),
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A file that is removed when it is dropped.
pub(super) struct Upload {
    file: File,
    path: PathBuf,
    size: u64,
    /// Where the next chunk may begin.
    received: u64,
    /// Of a disk whose size is known beforehand.
    hasher: Option<DiskHasher>,
    /// What came stays when it is dropped, for who goes on with it.
    is_partial: bool,
}

impl Upload {
    pub(super) fn create(path: PathBuf, size: u64) -> Result<Self, UploadError> {
        let mut upload = Self::of_unknown_size(path, size)?;
        upload.hasher = Some(DiskHasher::new(size));
        upload.set_len(size)?;
        Ok(upload)
    }

    /// As [`Self::create`], of an upload that others may go on with. What was there goes.
    pub(super) fn create_partial(path: PathBuf, size: u64) -> Result<Self, UploadError> {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(fault("removing", &path, source));
            }
            _ => {}
        }
        let mut upload = Self::create(path, size)?;
        upload.is_partial = true;
        Ok(upload)
    }

    /// Goes on with an upload that was cut off, at `received`. What came beyond that goes.
    pub(super) fn resume(path: PathBuf, size: u64, received: u64) -> Result<Self, UploadError> {
        let opened = File::options().read(true).write(true).open(&path);
        let file = match opened {
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(|source| fault("opening", &path, source))?),
        };
        let kept = match &file {
            Some(file) => received_of(file).map_err(|source| fault("reading", &path, source))?,
            None => 0,
        };
        let Some(file) = file.filter(|_| received <= kept) else {
            let expected = format!("{kept} bytes of this upload are kept. Give at most so many, or 0.");
            return Err(ApiError::invalid_value("ResumeAt", received, expected).into());
        };
        let upload = Self {
            file,
            path,
            size,
            received,
            hasher: None,
            is_partial: true,
        };
        upload.set_len(received)?;
        upload.set_len(size)?;
        Ok(upload)
    }

    /// Everything has come: it is nobody else's from now on, and called `path`.
    pub(super) fn whole(mut self, path: PathBuf) -> Result<Self, UploadError> {
        std::fs::rename(&self.path, &path).map_err(|source| self.fault("renaming", source))?;
        self.path = path;
        self.is_partial = false;
        Ok(self)
    }

    /// Of at most `most` bytes, until [`Self::ends_at`] says how many.
    pub(super) fn of_unknown_size(path: PathBuf, most: u64) -> Result<Self, UploadError> {
        let made = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = made.map_err(|source| fault("making", &path, source))?;
        Ok(Self {
            file,
            path,
            size: most,
            received: 0,
            hasher: None,
            is_partial: false,
        })
    }

    fn set_len(&self, bytes: u64) -> Result<(), UploadError> {
        let set = self.file.set_len(bytes);
        set.map_err(|source| self.fault("setting the size of", source))
    }

    /// Everything has come, and it has so many bytes.
    pub(super) fn ends_at(&mut self, size: u64) -> Result<(), UploadError> {
        if size > self.size || size < self.received {
            return Err(self.too_large(size));
        }
        self.size = size;
        self.set_len(size)
    }

    fn too_large(&self, end: u64) -> UploadError {
        let expected = format!("The image may have {} bytes.", self.size);
        ApiError::invalid_value("Chunk.Offset", end, expected).into()
    }

    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Offsets grow; what is skipped is zero. After an error nothing of it is kept.
    pub(super) fn write(&mut self, offset: i64, data: &Bytes) -> Result<(), UploadError> {
        let written = self.write_chunk(offset, data);
        self.is_partial &= written.is_ok();
        written
    }

    fn write_chunk(&mut self, offset: i64, data: &Bytes) -> Result<(), UploadError> {
        let begin = u64::try_from(offset)
            .ok()
            .filter(|offset| *offset >= self.received);
        let end = begin.and_then(|begin| begin.checked_add(data.len() as u64));
        let (Some(begin), Some(end)) = (begin, end) else {
            let expected = format!("Offsets grow: the next is {} or more.", self.received);
            return Err(ApiError::invalid_value("Chunk.Offset", offset, expected).into());
        };
        if end > self.size {
            return Err(self.too_large(end));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.zeros(begin - self.received);
            hasher.update(data);
        }
        self.leave_reserve(data.len() as u64)?;
        let mut at = begin;
        for block in data.chunks(HOLE) {
            if !is_zero(block) {
                self.file
                    .write_all_at(block, at)
                    .map_err(|source| self.fault("writing", source))?;
            }
            at += block.len() as u64;
        }
        self.received = end;
        Ok(())
    }

    /// Refuses to write so many bytes into the last free part of the file system.
    fn leave_reserve(&self, bytes: u64) -> Result<(), UploadError> {
        let stat = rustix::fs::fstatvfs(&self.file)
            .map_err(|error| self.fault("looking at the free space of", error.into()))?;
        let reserve = RESERVE.min(stat.f_blocks.saturating_mul(stat.f_frsize) / 20);
        if stat.f_bavail.saturating_mul(stat.f_frsize) < reserve.saturating_add(bytes) {
            return Err(full(&self.path));
        }
        Ok(())
    }

    /// Everything has come: answers the disk's digest, hex.
    pub(super) fn finish(mut self) -> Result<(Self, String), UploadError> {
        let digest = match self.hasher.take() {
            Some(hasher) => hasher.finish(),
            None => hearth_image::disk_digest(&self.file, self.size)
                .map_err(|source| self.fault("reading", source))?,
        };
        Ok((self, digest))
    }

    /// The file, to be read only.
    pub(super) fn reopen(&self) -> Result<File, UploadError> {
        File::open(&self.path).map_err(|source| self.fault("opening", source))
    }

    /// The file, for whoever uses it up.
    pub(super) fn file(&self) -> Result<File, UploadError> {
        let file = self.file.try_clone();
        file.map_err(|source| self.fault("sharing", source))
    }

    /// A place for what is in it.
    pub(super) fn beside(&self) -> PathBuf {
        self.path.with_extension("unpacked.upload")
    }

    pub(super) fn fault(&self, doing: &'static str, source: io::Error) -> UploadError {
        fault(doing, &self.path, source)
    }
}

/// How many bytes of an upload, from its beginning, have certainly come. Offsets grow, and what is skipped is zero: all that
/// stands before the last block with data has.
pub(super) fn received_of(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    let mut end = 0;
    for extent in Extents::of(file, meta.len()) {
        end = extent?.end;
    }
    let block = meta.blksize().max(HOLE as u64);
    Ok(end.saturating_sub(1) / block * block)
}

fn fault(doing: &'static str, path: &Path, source: io::Error) -> UploadError {
    // Both say that the disk is full; the second by quota.
    if matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return full(path);
    }
    UploadError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// There is no room for a disk in the directory of `path`.
pub(super) fn full(path: &Path) -> UploadError {
    let dir = path.parent().unwrap_or(path).display();
    UploadError::Refused(ApiError::new(
        ErrorCode::InsufficientCapacity,
        format!(
            "The control plane's disk is full: the image does not fit into {dir}. Make room there, or deregister \
             images, and upload again. Nothing was kept."
        ),
    ))
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_partial && self.received > 0 {
            return;
        }
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "removing an upload that is not kept");
            }
        };
        // Freeing many GiB takes the file system seconds. What a runtime that ends leaves is swept at the next start.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn holes_stay_holes_and_the_digest_is_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut upload = Upload::create(dir.path().join("ami-1.upload"), 1 << 20).unwrap();
        upload.write(0, &Bytes::from_static(b"boot")).unwrap();
        upload.write(4, &Bytes::from(vec![0; 300_000])).unwrap();
        upload.write(700_001, &Bytes::from_static(b"data")).unwrap();
        let (upload, digest) = upload.finish().unwrap();
        let bytes = std::fs::read(&upload.path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert_eq!(
            (&bytes[..4], &bytes[700_001..700_005]),
            (&b"boot"[..], &b"data"[..])
        );
        let kept = File::open(&upload.path).unwrap();
        assert_eq!(digest, hearth_image::disk_digest(&kept, 1 << 20).unwrap());
        assert!(std::fs::metadata(&upload.path).unwrap().blocks() * 512 < 100_000);
        drop(upload);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn chunks_out_of_line_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut upload = Upload::create(dir.path().join("ami-1.upload"), 100).unwrap();
        upload.write(10, &Bytes::from_static(b"0123456789")).unwrap();
        for (offset, data) in [(19, "x"), (-1, "x"), (100, "x"), (99, "xy"), (i64::MAX, "x")] {
            let refused = upload.write(offset, &Bytes::from_static(data.as_bytes()));
            assert!(matches!(refused, Err(UploadError::Refused(_))), "{offset}");
        }
        upload.write(99, &Bytes::from_static(b"x")).unwrap();
    }

    #[test]
    fn an_upload_that_was_cut_off_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1-a.partial");
        let (size, piece) = (4 << 20, Bytes::from(vec![5; 1 << 20]));
        let digest = {
            let mut whole = Upload::create(dir.path().join("ami-1.upload"), size).unwrap();
            for offset in [0, 1 << 20, 3 << 20] {
                whole.write(offset, &piece).unwrap();
            }
            whole.finish().unwrap().1
        };
        // Nothing came: nothing stays.
        drop(Upload::create_partial(path.clone(), size).unwrap());
        assert!(!path.exists());
        let mut cut = Upload::create_partial(path.clone(), size).unwrap();
        cut.write(0, &piece).unwrap();
        cut.write(1 << 20, &piece.slice(..700_000)).unwrap();
        drop(cut);
        let kept = received_of(&File::open(&path).unwrap()).unwrap();
        assert!((1 << 20..=(1 << 20) + 700_000).contains(&kept), "{kept}");
        // The last block is left out: half of it may not have come.
        assert!(kept > (1 << 20) + 600_000);
        let refused = Upload::resume(path.clone(), size, kept + 1);
        let Err(UploadError::Refused(error)) = refused.map(drop) else {
            panic!("more than there is was taken up")
        };
        assert!(error.message.contains(&kept.to_string()), "{}", error.message);
        let mut upload = Upload::resume(path.clone(), size, kept).unwrap();
        let rest = (2 << 20) - kept;
        upload
            .write(kept.cast_signed(), &piece.slice(..usize::try_from(rest).unwrap()))
            .unwrap();
        upload.write(3 << 20, &piece).unwrap();
        let upload = upload.whole(dir.path().join("ami-2.upload")).unwrap();
        assert!(!path.exists());
        let (upload, found) = upload.finish().unwrap();
        assert_eq!(found, digest);
        drop(upload);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // What is refused is not kept.
        let mut bad = Upload::create_partial(path.clone(), size).unwrap();
        bad.write(0, &piece).unwrap();
        assert!(bad.write(0, &piece).is_err());
        drop(bad);
        assert!(!path.exists());
        let none = Upload::resume(path, size, 1);
        assert!(matches!(none, Err(UploadError::Refused(_))));
    }

    #[test]
    fn a_full_disk_is_said_in_words() {
        let error = fault(
            "writing",
            Path::new("/d/ami-1.upload"),
            io::ErrorKind::StorageFull.into(),
        );
        let UploadError::Refused(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.code, ErrorCode::InsufficientCapacity);
        assert!(error.message.contains("/d"));
    }
}
