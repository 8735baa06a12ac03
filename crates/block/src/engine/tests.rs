//! One suite for all engines, on raw files and overlays, direct and through the page cache.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use proptest::prelude::*;
use tempfile::tempfile;

use super::*;
use crate::cipher::tests::cipher;
use crate::scratch::Scratch;
use crate::{Base, Cipher, Overlay, RawDisk, overlay};

const SIZE: u64 = 1 << 20;
const CHUNK: u64 = 16 << 10;
const BASE_SIZE: u64 = SIZE / 2 + 1024;
const DEPTH: u16 = 32;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Uring,
    Pooled,
}

fn engine(kind: Kind, disk: &Arc<dyn Disk>) -> Box<dyn Engine> {
    let pool = Pool::new(Arc::clone(disk), 4, &|builder, run| builder.spawn(run)).unwrap();
    match kind {
        Kind::Uring => Box::new(Uring::new(Arc::clone(disk), &pool, DEPTH).unwrap()),
        Kind::Pooled => Box::new(Pooled::new(&pool).unwrap()),
    }
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at / 512 * 7 + at) as u8).collect()
}

fn raw() -> (Arc<dyn Disk>, File) {
    let file = tempfile().unwrap();
    file.write_all_at(&pattern(SIZE), 0).unwrap();
    (Arc::new(RawDisk::new(file.try_clone().unwrap()).unwrap()), file)
}

/// Half a base, and some chunks present.
fn overlaid() -> Arc<dyn Disk> {
    Arc::new(written(opened(None)))
}

/// The same on an encrypted base, or on a plain one, which it may be itself.
fn encrypted(base: bool, itself: bool) -> Arc<dyn Disk> {
    let disk = opened(base.then(|| cipher(1)));
    Arc::new(written(match itself {
        true => disk.encrypted(cipher(2)),
        false => disk,
    }))
}

fn opened(base_cipher: Option<Arc<Cipher>>) -> Overlay<Backing> {
    let (data, map, base) = (tempfile().unwrap(), tempfile().unwrap(), tempfile().unwrap());
    let mut contents = pattern(BASE_SIZE);
    if let Some(cipher) = &base_cipher {
        cipher.encrypt(&mut contents, 0).unwrap();
    }
    base.write_all_at(&contents, 0).unwrap();
    overlay::create_chunked(&data, &map, BASE_SIZE, SIZE, CHUNK).unwrap();
    let [data, map, base] = [data, map, base].map(|file| Backing::new(file).unwrap());
    let base = Base::whole(base);
    let base = match base_cipher {
        Some(cipher) => base.encrypted(cipher),
        None => base,
    };
    Overlay::over(data, map, Some(base)).unwrap()
}

fn written(disk: Overlay<Backing>) -> Overlay<Backing> {
    for chunk in [1, 2, 7, 20, 40] {
        disk.write_at(&[chunk as u8; 100], chunk * CHUNK + 300).unwrap();
    }
    disk
}

use crate::Backing;

/// Each engine on each kind of disk, direct and buffered.
fn everywhere(test: impl Fn(&mut dyn Engine, &Arc<dyn Disk>)) {
    for kind in [Kind::Uring, Kind::Pooled] {
        for direct in [false, true] {
            let encrypted = [
                encrypted(false, true),
                encrypted(true, true),
                encrypted(true, false),
            ];
            for disk in [raw().0, overlaid()].into_iter().chain(encrypted) {
                disk.set_direct(direct);
                eprintln!(
                    "{kind:?}, direct: {direct}, overlay: {}, encrypted: {:?}",
                    disk.backings().len() > 1,
                    [0, 1].map(|backing| disk.cipher(backing).is_some())
                );
                test(&mut *engine(kind, &disk), &disk);
            }
        }
    }
}

/// Memory that requests may use, cut into pieces.
struct Memory {
    scratch: Scratch,
    pieces: Vec<usize>,
}

impl Memory {
    fn new(bytes: &[u8], pieces: &[usize]) -> Memory {
        let mut scratch = Scratch::new(bytes.len());
        scratch.bytes().copy_from_slice(bytes);
        let mut left = bytes.len();
        let mut pieces: Vec<usize> = pieces
            .iter()
            .map(|&len| {
                let len = len.min(left);
                left -= len;
                len
            })
            .collect();
        pieces.push(left);
        Memory { scratch, pieces }
    }

    fn segments(&mut self) -> Vec<Segment> {
        let mut at = self.scratch.bytes().as_mut_ptr();
        let mut segments = Vec::new();
        for &len in &self.pieces {
            segments.push(Segment::new(at, len));
            at = at.wrapping_add(len);
        }
        segments
    }
}

fn request(token: usize, operation: Operation, offset: u64, memory: &mut Memory) -> Request {
    Request {
        token,
        operation,
        offset,
        len: memory.scratch.bytes().len() as u64,
        buffers: memory.segments(),
    }
}

fn submit(engine: &mut dyn Engine, request: Request) {
    // SAFETY: tests keep the memory until they have reaped.
    unsafe { engine.submit(request) };
}

fn finish(engine: &mut dyn Engine) -> Vec<Completion> {
    let mut ended = Vec::new();
    engine.kick().unwrap();
    while engine.in_flight() > 0 {
        engine.sleep().unwrap();
        engine.reap(&mut ended);
    }
    ended
}

fn run(engine: &mut dyn Engine, operation: Operation, offset: u64, memory: &mut Memory) -> io::Result<()> {
    submit(engine, request(77, operation, offset, memory));
    let ended = finish(engine).pop().unwrap();
    assert_eq!(ended.request.token, 77);
    ended.result
}

fn without_data(operation: Operation, offset: u64, len: u64) -> Request {
    Request {
        token: 0,
        operation,
        offset,
        len,
        buffers: Vec::new(),
    }
}

fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut content = vec![0; disk.size() as usize];
    disk.read_at(&mut content, 0).unwrap();
    content
}

#[test]
fn whatever_is_in_flight_together_arrives() {
    everywhere(|engine, disk| {
        let expected = content(&**disk);
        // More at once than the ring has entries, each of another length and framing.
        let mut reads: Vec<(u64, Memory)> = (0..100u64)
            .map(|nth| {
                let offset = nth * 8192;
                let len = (512 * (1 + nth * 3)).min(SIZE - offset) as usize;
                let pieces: &[usize] = if nth % 3 == 0 { &[512, 1536] } else { &[] };
                (offset, Memory::new(&vec![0xEE; len], pieces))
            })
            .collect();
        for (token, (offset, memory)) in reads.iter_mut().enumerate() {
            submit(engine, request(token, Operation::Read, *offset, memory));
        }
        assert_eq!(engine.in_flight(), 100);
        let ended = finish(engine);
        let mut tokens: Vec<usize> = ended.iter().map(|it| it.request.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..100).collect::<Vec<_>>());
        for completion in ended {
            completion.result.unwrap();
        }
        for (offset, memory) in &mut reads {
            let bytes = memory.scratch.bytes();
            assert!(
                *bytes == expected[*offset as usize..][..bytes.len()],
                "at {offset}"
            );
        }
    });
}

#[test]
fn memory_and_offsets_need_no_alignment() {
    everywhere(|engine, disk| {
        let expected = content(&**disk);
        for (offset, len, pieces) in [
            (512, 1024, &[1usize, 500, 100][..]),
            (3 * CHUNK - 512, 4 * CHUNK, &[3]),
            (777, 1000, &[]),
        ] {
            let mut memory = Memory::new(&vec![0; len as usize], pieces);
            run(engine, Operation::Read, offset, &mut memory).unwrap();
            assert!(*memory.scratch.bytes() == expected[offset as usize..][..len as usize]);
            let mut new = Memory::new(&vec![offset as u8; len as usize], pieces);
            run(engine, Operation::Write, offset, &mut new).unwrap();
            run(engine, Operation::Read, offset, &mut memory).unwrap();
            assert!(memory.scratch.bytes().iter().all(|&byte| byte == offset as u8));
            run(
                engine,
                Operation::Write,
                offset,
                &mut Memory::new(&expected[offset as usize..][..len as usize], &[]),
            )
            .unwrap();
        }
        assert!(content(&**disk) == expected);
    });
}

#[test]
fn what_lies_beyond_the_disk_is_refused_and_nothing_else_suffers() {
    everywhere(|engine, disk| {
        let before = content(&**disk);
        for offset in [SIZE - 512, SIZE, u64::MAX - 511] {
            for operation in [Operation::Read, Operation::Write] {
                let mut memory = Memory::new(&[1; 1024], &[]);
                assert!(
                    run(engine, operation, offset, &mut memory).is_err(),
                    "{operation:?} at {offset}"
                );
            }
            for operation in [Operation::Discard, Operation::WriteZeroes { unmap: true }] {
                submit(engine, without_data(operation, offset, 1024));
                assert!(finish(engine)[0].result.is_err());
            }
        }
        assert!(content(&**disk) == before);
    });
}

#[test]
fn zeroes_and_discards_reach_the_disk() {
    everywhere(|engine, disk| {
        let mut expected = content(&**disk);
        for (offset, len, unmap) in [
            (0, 3 * CHUNK, true),
            (7 * CHUNK + 512, 1024, false),
            (SIZE - CHUNK, CHUNK, true),
        ] {
            submit(
                engine,
                without_data(Operation::WriteZeroes { unmap }, offset, len),
            );
            finish(engine).remove(0).result.unwrap();
            expected[offset as usize..][..len as usize].fill(0);
        }
        assert!(content(&**disk) == expected);
        submit(engine, without_data(Operation::Discard, 0, SIZE));
        finish(engine).remove(0).result.unwrap();
        submit(engine, without_data(Operation::Flush, 0, 0));
        finish(engine).remove(0).result.unwrap();
        let zero_or_before = |(new, old): (&[u8], &[u8])| new == old || new.iter().all(|&byte| byte == 0);
        assert!(
            content(&**disk)
                .chunks(512)
                .zip(expected.chunks(512))
                .all(zero_or_before)
        );
    });
}

#[test]
fn a_discard_makes_the_file_sparse() {
    let (disk, file) = raw();
    assert!(disk.can_discard());
    let before = file.metadata().unwrap().blocks();
    assert!(before >= SIZE / 512);
    submit_and_check(Kind::Uring, &disk, without_data(Operation::Discard, 0, SIZE));
    assert!(file.metadata().unwrap().blocks() < before / 4);
    assert_eq!(file.metadata().unwrap().len(), SIZE);
}

fn submit_and_check(kind: Kind, disk: &Arc<dyn Disk>, request: Request) {
    let mut engine = engine(kind, disk);
    submit(&mut *engine, request);
    finish(&mut *engine).remove(0).result.unwrap();
}

#[test]
fn a_read_only_disk_is_not_written() {
    for kind in [Kind::Uring, Kind::Pooled] {
        let (_, file) = raw();
        let disk: Arc<dyn Disk> = Arc::new(RawDisk::new(file).unwrap().read_only());
        assert!(!disk.can_discard());
        let mut engine = engine(kind, &disk);
        for operation in [
            Operation::Write,
            Operation::Discard,
            Operation::WriteZeroes { unmap: false },
        ] {
            let result = run(&mut *engine, operation, 0, &mut Memory::new(&[9; 512], &[]));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        run(&mut *engine, Operation::Read, 0, &mut Memory::new(&[9; 512], &[])).unwrap();
        assert!(content(&*disk) == pattern(SIZE));
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error_and_not_garbage() {
    for kind in [Kind::Uring, Kind::Pooled] {
        let (disk, file) = raw();
        let mut engine = engine(kind, &disk);
        file.set_len(SIZE / 2 + 512).unwrap();
        let mut memory = Memory::new(&[9; 1024], &[]);
        assert!(run(&mut *engine, Operation::Read, SIZE / 2, &mut memory).is_err());
        run(&mut *engine, Operation::Read, SIZE / 2 - 512, &mut memory).unwrap();
        assert_eq!(disk.refresh_size().unwrap(), SIZE / 2 + 512);
    }
}

#[test]
fn dropping_an_engine_waits_for_what_is_in_flight() {
    everywhere(|engine, disk| {
        // Through an engine of its own, dropped with everything in flight.
        let _ = engine;
        for kind in [Kind::Uring, Kind::Pooled] {
            let mut writes: Vec<Memory> = (0..64)
                .map(|nth| Memory::new(&vec![nth as u8; 4096], &[]))
                .collect();
            let mut engine = self::engine(kind, disk);
            for (token, memory) in writes.iter_mut().enumerate() {
                submit(
                    &mut *engine,
                    request(token, Operation::Write, token as u64 * CHUNK, memory),
                );
            }
            engine.kick().unwrap();
            drop(engine);
            drop(writes);
        }
        for nth in 0..64u64 {
            let mut byte = [0];
            disk.read_at(&mut byte, nth * CHUNK + 4095).unwrap();
            assert_eq!(byte, [nth as u8]);
        }
    });
}

#[test]
fn a_switch_to_direct_io_is_a_probe() {
    let (disk, _) = raw();
    disk.set_direct(true);
    // The temporary directory's file system decides; whatever it is, the disk works.
    eprintln!("direct: {}", disk.backings()[0].is_direct());
    let mut odd = vec![0; 1001];
    disk.read_at(&mut odd, 13).unwrap();
    assert!(odd == pattern(SIZE)[13..][..1001]);
    disk.write_at(b"odd", SIZE - 3).unwrap();
    disk.set_direct(false);
    assert!(!disk.backings()[0].is_direct());
    disk.read_at(&mut odd[..3], SIZE - 3).unwrap();
    assert_eq!(odd[..3], *b"odd");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Both engines on an overlay hold what a vector holds, with the batch's requests not overlapping.
    #[test]
    fn engines_are_a_vector(
        uring in any::<bool>(),
        direct in any::<bool>(),
        encryption in any::<(bool, bool)>(),
        batches in prop::collection::vec(
            prop::collection::vec((0u8..4, 0..SIZE / CHUNK, 0..CHUNK / 512, 1..3 * CHUNK / 512, 0usize..2000), 1..12),
            1..6,
        ),
    ) {
        let disk = encrypted(encryption.0, encryption.1);
        disk.set_direct(direct);
        let mut engine = engine(if uring { Kind::Uring } else { Kind::Pooled }, &disk);
        let mut model = content(&*disk);
        for batch in batches {
            let mut taken: Vec<std::ops::Range<u64>> = Vec::new();
            let mut memories = Vec::new();
            for (nth, (kind, chunk, sector, sectors, cut)) in batch.into_iter().enumerate() {
                let offset = chunk * CHUNK + sector * 512;
                let len = (sectors * 512).min(SIZE - offset);
                if taken.iter().any(|range| range.start < offset + len && offset < range.end) {
                    continue;
                }
                taken.push(offset..offset + len);
                let range = offset as usize..(offset + len) as usize;
                let operation = match kind {
                    0 => Operation::Read,
                    1 | 2 => Operation::Write,
                    _ => Operation::WriteZeroes { unmap: cut % 2 == 0 },
                };
                let fresh = vec![nth as u8 + 1; len as usize];
                let mut memory = Memory::new(&fresh, &[cut / 512 * 512]);
                match operation {
                    Operation::Write => model[range].copy_from_slice(&fresh),
                    Operation::WriteZeroes { .. } => model[range].fill(0),
                    _ => {}
                }
                submit(&mut *engine, request(memories.len(), operation, offset, &mut memory));
                memories.push((operation, offset, memory));
            }
            for completion in finish(&mut *engine) {
                completion.result.unwrap();
            }
            for (operation, offset, mut memory) in memories {
                if operation == Operation::Read {
                    let bytes = memory.scratch.bytes();
                    prop_assert!(*bytes == model[offset as usize..][..bytes.len()]);
                }
            }
        }
        prop_assert!(content(&*disk) == model);
    }
}
