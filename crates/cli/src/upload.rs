//! Uploading a disk image: only what is not zero travels, and what travelled in an upload that was cut off does not again.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hearth_api::Client;
use hearth_api::v1::upload_image_request::{Chunk, Parameters, Part};
use hearth_api::v1::{GetImageUploadRequest, UploadImageRequest, UploadImageResponse};
use hearth_image::disk_digest;
use indicatif::{BinaryBytes, ProgressBar, ProgressFinish, ProgressStyle};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::error::CliError;

/// Bytes of one message; below gRPC's customary limit of 4 MiB.
const CHUNK: u64 = 1 << 20;

/// Chunks that are read ahead of the network.
const AHEAD: usize = 4;

/// How long nothing is sent while zeros are read: the service ends an upload after 30 seconds of silence.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) struct DiskImage {
    path: PathBuf,
    file: File,
    size: u64,
}

impl DiskImage {
    /// A file that was fetched.
    pub(crate) fn fetched(address: &str, file: File) -> Result<Self, CliError> {
        let size = seek(&file, SeekFrom::End(0));
        let size = size.map_err(|error| CliError::io("looking at what was fetched", error.into()))?;
        Ok(Self {
            path: address.into(),
            file,
            size,
        })
    }

    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let unreadable = |e: io::Error| {
            CliError::parameter("--disk-image", format!("Unable to read {}: {e}", path.display()))
        };
        let file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        // A block device tells its size this way only.
        let size = seek(&file, SeekFrom::End(0)).map_err(|e| unreadable(e.into()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    /// Bytes.
    pub(crate) fn size(&self) -> i64 {
        self.size.try_into().unwrap_or(i64::MAX)
    }

    /// How many bytes the service has of an upload that was cut off, if they are those of this file. Where it does not say, or the
    /// file does not, the upload begins anew.
    async fn received(&self, client: &mut Client, parameters: &Parameters) -> u64 {
        let request = GetImageUploadRequest {
            name: parameters.name.clone(),
            size: parameters.size,
        };
        let kept = client.image_disks.get_image_upload(request).await;
        let (Ok(kept), Ok(file)) = (kept, self.file.try_clone()) else {
            return 0;
        };
        let kept = kept.into_inner();
        let received = kept.received_bytes.unsigned_abs();
        if !(1..=self.size).contains(&received) {
            return 0;
        }
        let own = tokio::task::spawn_blocking(move || disk_digest(&file, received)).await;
        match own {
            Ok(Ok(own)) if own == kept.digest => received,
            _ => 0,
        }
    }

    /// Sends the image, and answers what the service did.
    ///
    /// # Errors
    /// When the file cannot be read; the call is then cancelled, so that half an image is never registered.
    pub(crate) async fn upload(
        self,
        client: &mut Client,
        mut parameters: Parameters,
    ) -> Result<Result<Response<UploadImageResponse>, Status>, CliError> {
        let begin = match parameters.dry_run {
            true => 0,
            false => self.received(client, &parameters).await,
        };
        parameters.resume_at = begin.try_into().unwrap_or(0);
        let (sender, receiver) = mpsc::channel(AHEAD);
        // While a sender lives the stream does not end, and only a stream that ended can be taken for a whole image.
        let keep_open = sender.clone();
        let dry_run = parameters.dry_run;
        let path = self.path.clone();
        let reader = tokio::task::spawn_blocking(move || {
            let send = |part| {
                sender
                    .blocking_send(UploadImageRequest { part: Some(part) })
                    .is_ok()
            };
            if !send(Part::Parameters(parameters)) || dry_run {
                return Ok(());
            }
            let progress = progress("uploading", self.size);
            if begin > 0 {
                let begin = BinaryBytes(begin);
                progress.println(format!("going on with the upload that was cut off at {begin}"));
            }
            chunks(&self.file, begin, self.size, SILENCE, |offset, data| {
                progress.set_position(offset);
                send(Part::Chunk(Chunk {
                    offset: offset.try_into().unwrap_or(i64::MAX),
                    data: data.into(),
                }))
            })
        });
        let call = client.image_disks.upload_image(ReceiverStream::new(receiver));
        let read = async {
            let outcome = reader.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            outcome.map_err(|e| CliError::io(format!("reading {}", path.display()), e))?;
            drop(keep_open);
            Ok::<_, CliError>(())
        };
        tokio::pin!(call, read);
        tokio::select! {
            // The service may answer, and refuse, before it has heard all.
            answer = &mut call => Ok(answer),
            read = &mut read => {
                read?;
                Ok(call.await)
            }
        }
    }
}

/// Reads all chunks from `begin` on that are not zero, in the order of their offsets, until `emit` answers false. Emits an empty
/// chunk after each `silence` of zeros.
fn chunks(
    file: &File,
    begin: u64,
    size: u64,
    silence: Duration,
    mut emit: impl FnMut(u64, Vec<u8>) -> bool,
) -> io::Result<()> {
    let mut offset = begin;
    let mut emitted = Instant::now();
    while offset < size {
        let (start, end) = match next_data(file, offset, size)? {
            Some(extent) => extent,
            None => return Ok(()),
        };
        offset = start;
        while offset < end {
            // Up to the next multiple of CHUNK, so that zeros are found as whole blocks of the disk.
            let length = (CHUNK - offset % CHUNK).min(end - offset);
            let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut data, offset)?;
            let zero = data.iter().all(|byte| *byte == 0);
            if zero {
                data.clear();
            }
            if !zero || emitted.elapsed() >= silence {
                if !emit(offset, data) {
                    return Ok(());
                }
                emitted = Instant::now();
            }
            offset += length;
        }
    }
    Ok(())
}

/// The next part of the file at or after `offset` that is no hole; `None` when there is no more.
fn next_data(file: &File, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        // Holes up to the end. But the end may have come nearer since.
        Err(Errno::NXIO) if seek(file, SeekFrom::End(0))? >= size => return Ok(None),
        Err(Errno::NXIO) => return Err(io::ErrorKind::UnexpectedEof.into()),
        // Neither every file system nor block devices know holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, size))),
        Err(e) => return Err(e.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

pub(crate) fn progress(doing: &str, size: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template =
        format!("{{spinner}} {doing} {{bar:32}} {{binary_bytes}}/{{binary_total_bytes}} ({{eta}} left)");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size)
        .with_style(style)
        .with_finish(ProgressFinish::AndClear)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Puts the chunks of a file together again, and tells how many bytes travelled.
    fn received(file: &File, size: u64) -> (Vec<u8>, usize) {
        let mut disk = vec![0; size as usize];
        let (mut travelled, mut last) = (0, 0);
        chunks(file, 0, size, SILENCE, |offset, data| {
            assert!(offset >= last && data.len() as u64 <= CHUNK);
            last = offset + data.len() as u64;
            disk[offset as usize..last as usize].copy_from_slice(&data);
            travelled += data.len();
            true
        })
        .unwrap();
        (disk, travelled)
    }

    #[test]
    fn holes_and_zeros_do_not_travel() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"boot", 0).unwrap();
        file.write_all_at(&vec![0; 8 << 20], 16 << 20).unwrap();
        file.write_all_at(b"end", (40 << 20) - 1).unwrap();
        let (disk, travelled) = received(&file, 64 << 20);
        assert_eq!(&disk[..4], b"boot");
        assert_eq!(&disk[(40 << 20) - 1..(40 << 20) + 2], b"end");
        assert!(travelled <= 3 << 20, "{travelled}");
    }

    #[test]
    fn a_long_run_of_zeros_is_not_silent() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
        let mut emitted = Vec::new();
        chunks(&file, 0, 4 << 20, Duration::ZERO, |offset, data| {
            assert!(data.is_empty());
            emitted.push(offset);
            true
        })
        .unwrap();
        assert_eq!(emitted, [0, 1 << 20, 2 << 20, 3 << 20]);
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        let error = chunks(&file, 0, 200, SILENCE, |_, _| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_disk_arrives_as_it_is(
            size in 0u64..6 << 20,
            writes in proptest::collection::vec((0u64..6 << 20, 1usize..300_000), 0..6),
        ) {
            let file = tempfile::tempfile().unwrap();
            for (offset, length) in writes {
                file.write_all_at(&vec![7; length], offset).unwrap();
            }
            file.set_len(size).unwrap();
            let mut expected = vec![0; size as usize];
            file.read_exact_at(&mut expected, 0).unwrap();
            prop_assert_eq!(received(&file, size).0, expected);
        }
    }
}
