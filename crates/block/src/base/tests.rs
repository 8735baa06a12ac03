//! A base that comes while it is read: in any order, with failures, kills and power cuts; and who waits for it.

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::tempfile;

use super::*;
use crate::cipher::tests::cipher;
use crate::engine::{Completion, Engine, Operation, Pool, Pooled, Request, Segment, Uring};
use crate::overlay::tests::power::{Fuse, PowerFile};
use crate::{Access, Disk, Overlay, SECTOR, overlay};

const BASE: u64 = 3 * CHUNK + 2 * SECTOR;
const SIZE: u64 = 4 * CHUNK;
const OVERLAY_CHUNK: u64 = 64 << 10;

/// Every sector differs, but for the second chunk, which is zeros.
fn contents() -> Vec<u8> {
    let byte = |at: u64| match at / CHUNK {
        1 => 0,
        _ => (at / SECTOR * 7 + at % 251 + 1) as u8,
    };
    (0..BASE).map(byte).collect()
}

fn chunk_of(contents: &[u8], chunk: u64) -> &[u8] {
    let from = &contents[(chunk * CHUNK) as usize..];
    &from[..from.len().min(CHUNK as usize)]
}

/// Fetches as an agent does: sometimes late, sometimes not at all.
struct Courier {
    contents: Vec<u8>,
    /// Replaced when the process that fills is killed.
    filling: Mutex<Arc<Filling<PowerFile>>>,
    /// Fetches that fail from now on.
    failures: Mutex<u32>,
    fetched: AtomicU64,
}

impl Fetch for Arc<Courier> {
    fn fetch(&self, chunk: u64, done: Done) {
        let courier = Arc::clone(self);
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(chunk * 37 % 100));
            courier.fetched.fetch_add(1, Ordering::Relaxed);
            let mut failures = courier.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return done(Err(io::Error::other("the chunk is refused")));
            }
            drop(failures);
            let filling = Arc::clone(&courier.filling.lock().unwrap());
            done(filling.put(chunk, chunk_of(&courier.contents, chunk)));
        });
    }
}

#[derive(Debug, Clone)]
enum Op {
    Read {
        offset: u64,
        len: usize,
    },
    Write {
        offset: u64,
        len: usize,
    },
    Zero {
        offset: u64,
        len: usize,
    },
    /// In the background.
    Arrive {
        chunk: u64,
    },
    Settle,
    /// `kill -9` of who fills.
    KillFiller,
    /// Another reader takes over.
    Reopen,
    /// The power goes: of the base any of what was not settled is left.
    Cut,
    Fail,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0..SIZE, 1..2 * OVERLAY_CHUNK as usize);
    let op = prop_oneof![
        6 => range().prop_map(|(offset, len)| Op::Read { offset, len }),
        6 => range().prop_map(|(offset, len)| Op::Write { offset, len }),
        2 => range().prop_map(|(offset, len)| Op::Zero { offset, len }),
        2 => (0..BASE.div_ceil(CHUNK)).prop_map(|chunk| Op::Arrive { chunk }),
        3 => Just(Op::Settle),
        2 => Just(Op::KillFiller),
        2 => Just(Op::Reopen),
        1 => Just(Op::Cut),
        2 => Just(Op::Fail),
    ];
    proptest::collection::vec(op, 1..40)
}

/// What a file of a test has been written with.
fn power_file(file: &File, fuse: &Fuse) -> PowerFile {
    let mut bytes = vec![0; Store::size(file).unwrap() as usize];
    Store::read_exact_at(file, &mut bytes, 0).unwrap();
    PowerFile::new(bytes, fuse)
}

struct World {
    courier: Arc<Courier>,
    base: [PowerFile; 2],
    volume: [PowerFile; 2],
    encryption: Encryption,
}

/// What lies encrypted: the base, the volume.
type Encryption = (bool, bool);

impl World {
    fn new(encryption: Encryption) -> World {
        let fuse = Fuse::default();
        fuse.never();
        let file = || tempfile().unwrap();
        let (data, map) = (file(), file());
        Filling::create(&data, &map, BASE).unwrap();
        let base = [power_file(&data, &fuse), power_file(&map, &fuse)];
        let (data, map) = (file(), file());
        overlay::create_chunked(&data, &map, BASE, SIZE, OVERLAY_CHUNK).unwrap();
        let volume = [power_file(&data, &fuse), power_file(&map, &fuse)];
        let courier = Courier {
            contents: contents(),
            filling: Mutex::new(fill(&base, encryption)),
            failures: Mutex::default(),
            fetched: AtomicU64::default(),
        };
        World {
            courier: Arc::new(courier),
            base,
            volume,
            encryption,
        }
    }

    fn open(&self) -> Overlay<PowerFile> {
        let [file, map] = self.base.clone();
        let [data, states] = self.volume.clone();
        let base = Base::in_part(file, map, Arc::new(Arc::clone(&self.courier))).unwrap();
        let base = match self.encryption.0 {
            true => base.encrypted(cipher(1)),
            false => base,
        };
        let disk = Overlay::over(data, states, Some(base)).unwrap();
        match self.encryption.1 {
            true => disk.encrypted(cipher(2)),
            false => disk,
        }
    }

    fn filling(&self) -> Arc<Filling<PowerFile>> {
        Arc::clone(&self.courier.filling.lock().unwrap())
    }

    fn kill_filler(&self) {
        *self.courier.filling.lock().unwrap() = fill(&self.base, self.encryption);
    }
}

fn fill([data, map]: &[PowerFile; 2], encryption: Encryption) -> Arc<Filling<PowerFile>> {
    let filling = Filling::open(data.clone(), map.clone(), BASE).unwrap();
    Arc::new(match encryption.0 {
        true => filling.encrypted(cipher(1)).unwrap(),
        false => filling,
    })
}

fn refuses(world: &World) -> bool {
    std::mem::take(&mut *world.courier.failures.lock().unwrap()) == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_volume_on_a_base_that_is_coming_reads_as_on_one_that_is_there(
        ops in ops(),
        picks in proptest::collection::vec(any::<usize>(), 64),
        encryption in any::<Encryption>(),
    ) {
        let world = World::new(encryption);
        let mut model = contents();
        model.resize(SIZE as usize, 0);
        let mut disk = world.open();
        for (round, op) in ops.into_iter().enumerate() {
            let cut = |offset: u64, len: usize| len.min((SIZE - offset) as usize);
            match op {
                Op::Read { offset, len } => {
                    let mut found = vec![0xEE; cut(offset, len)];
                    if let Err(error) = disk.read_at(&mut found, offset) {
                        // An error is told, and the same again succeeds.
                        prop_assert!(refuses(&world), "{error}");
                        disk.read_at(&mut found, offset).unwrap();
                    }
                    prop_assert_eq!(&found, &model[offset as usize..][..found.len()]);
                }
                Op::Write { offset, len } => {
                    let bytes = vec![round as u8 + 1; cut(offset, len)];
                    if let Err(error) = disk.write_at(&bytes, offset) {
                        prop_assert!(refuses(&world), "{error}");
                        disk.write_at(&bytes, offset).unwrap();
                    }
                    model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
                Op::Zero { offset, len } => {
                    let len = cut(offset, len);
                    if let Err(error) = disk.write_zeroes(offset, len as u64, round % 2 == 0) {
                        prop_assert!(refuses(&world), "{error}");
                        disk.write_zeroes(offset, len as u64, false).unwrap();
                    }
                    model[offset as usize..][..len].fill(0);
                }
                Op::Arrive { chunk } => {
                    let bytes = match chunk {
                        1 => &[],
                        chunk => chunk_of(&world.courier.contents, chunk),
                    };
                    world.filling().put(chunk, bytes).unwrap();
                }
                Op::Settle => world.filling().settle().unwrap(),
                Op::KillFiller => world.kill_filler(),
                Op::Reopen => {
                    disk.flush().unwrap();
                    disk = world.open();
                }
                Op::Cut => {
                    disk.flush().unwrap();
                    let mut picks = picks.iter().cycle();
                    world.base.iter().for_each(|file| file.cut(|below| picks.next().unwrap() % below));
                    world.kill_filler();
                    disk = world.open();
                }
                Op::Fail => *world.courier.failures.lock().unwrap() = 1,
            }
        }
        *world.courier.failures.lock().unwrap() = 0;
        let filling = world.filling();
        while let Some(chunk) = filling.next_missing(0) {
            filling.put(chunk, chunk_of(&world.courier.contents, chunk)).unwrap();
        }
        prop_assert_eq!(filling.missing(), 0);
        filling.settle().unwrap();
        let mut found = vec![0xEE; SIZE as usize];
        disk.read_at(&mut found, 0).unwrap();
        prop_assert!(found == model);
        // Who opens it from now on asks nobody.
        disk.flush().unwrap();
        let before = world.courier.fetched.load(Ordering::Relaxed);
        let disk = world.open();
        prop_assert_eq!(disk.awaits(0, SIZE, Access::Read), None);
        disk.read_at(&mut found, 0).unwrap();
        prop_assert!(found == model);
        prop_assert_eq!(world.courier.fetched.load(Ordering::Relaxed), before);
    }
}

#[test]
fn a_base_that_has_come_is_only_looked_at_once() {
    let world = World::new((false, false));
    let disk = world.open();
    let filling = world.filling();
    (0..filling.chunks()).for_each(|chunk| filling.put(chunk, &[]).unwrap());
    // It is not durable, and so not in the map.
    assert_eq!(disk.awaits(0, SIZE, Access::Read), Some(0));
    filling.settle().unwrap();
    assert_eq!(disk.awaits(0, SIZE, Access::Read), None);
    drop(filling);
    world.base[1].write_all_at(&[0; 512], 0).unwrap();
    disk.read_at(&mut [0; 512], 0).unwrap();
    assert!(
        Base::in_part(
            world.base[0].clone(),
            world.base[1].clone(),
            Arc::new(Arc::clone(&world.courier))
        )
        .is_err()
    );
}

#[test]
fn what_does_not_belong_to_a_base_is_refused() {
    let file = || tempfile().unwrap();
    let (data, map) = (file(), file());
    // An odd tail shorter than a sector.
    Filling::create(&data, &map, CHUNK + 7).unwrap();
    assert_eq!(Store::size(&data).unwrap(), CHUNK + 7);
    let reopen = |size| Filling::open(data.try_clone().unwrap(), map.try_clone().unwrap(), size);
    assert!(reopen(2 * CHUNK).is_err());
    let filling = reopen(CHUNK + 7).unwrap();
    for (chunk, len) in [(0, CHUNK + 1), (1, 8), (2, 0), (u64::MAX, 1)] {
        let refused = filling.put(chunk, &vec![1; len as usize]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{chunk} {len}");
    }
    filling.put(1, &[1; 7]).unwrap();
    assert_eq!((filling.missing(), filling.next_missing(0)), (1, Some(0)));
    assert_eq!(filling.next_missing(1), None);
    // XTS encrypts whole sectors.
    assert!(reopen(CHUNK + 7).unwrap().encrypted(cipher(1)).is_err());
    // An overlay's map is none of a base.
    let (data, map) = (file(), file());
    overlay::create(&data, &map, 0, CHUNK).unwrap();
    assert!(Filling::open(data, map, CHUNK).is_err());
}

/// Keeps everybody waiting until it is told.
#[derive(Default)]
struct Slow {
    asked: Mutex<Vec<(u64, Done)>>,
    news: Condvar,
}

impl Fetch for Arc<Slow> {
    fn fetch(&self, chunk: u64, done: Done) {
        self.asked.lock().unwrap().push((chunk, done));
        self.news.notify_all();
    }
}

#[test]
fn reads_that_wait_for_the_base_leave_the_threads_to_others() {
    const READS: usize = 16;
    for uring in [false, true] {
        let file = || tempfile().unwrap();
        let (base, base_map, data, map) = (file(), file(), file(), file());
        Filling::create(&base, &base_map, BASE).unwrap();
        overlay::create_chunked(&data, &map, BASE, SIZE, OVERLAY_CHUNK).unwrap();
        let backing = |file: &File| Backing::new(file.try_clone().unwrap()).unwrap();
        let slow = Arc::new(Slow::default());
        let courier = Arc::new(Arc::clone(&slow));
        let over = Base::in_part(backing(&base), backing(&base_map), courier).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(Overlay::over(backing(&data), backing(&map), Some(over)).unwrap());
        let pool = Pool::new(Arc::clone(&disk), 2, &|builder, run| builder.spawn(run)).unwrap();
        let mut engine: Box<dyn Engine> = match uring {
            true => Box::new(Uring::new(Arc::clone(&disk), &pool, 32).unwrap()),
            false => Box::new(Pooled::new(&pool).unwrap()),
        };
        // The chunk before the one that is waited for is there.
        let filling = Filling::open(base, base_map, BASE).unwrap();
        filling.put(1, &[]).unwrap();
        filling.settle().unwrap();
        let mut memory = vec![0xEE_u8; (READS + 4) * 4096];
        let start = memory.as_mut_ptr();
        let request = |token: usize, operation, offset, len: usize| Request {
            token,
            operation,
            offset,
            len: len as u64,
            buffers: vec![Segment::new(start.wrapping_add(token * 4096), len)],
        };
        let submit = |engine: &mut dyn Engine, request| {
            // SAFETY: the memory is there until all has been reaped.
            unsafe { engine.submit(request) };
            engine.kick().unwrap();
        };
        // More than there are threads, into a chunk that is missing from one that is not; and writes that fill the rest of
        // their chunks, before them and behind.
        let read_at = |token: usize| 2 * CHUNK - 512 * (token as u64 % 8);
        for token in 0..READS {
            submit(
                &mut *engine,
                request(token, Operation::Read, read_at(token), 4096),
            );
        }
        let writes =
            [(1, 512), (2, 512), (3, 0), (4, 0)].map(|(chunk, at)| 2 * CHUNK + chunk * OVERLAY_CHUNK + at);
        for (nth, offset) in writes.into_iter().enumerate() {
            submit(&mut *engine, request(READS + nth, Operation::Write, offset, 512));
        }
        let mut asked = slow.asked.lock().unwrap();
        while asked.len() < READS + 4 {
            asked = slow.news.wait_timeout(asked, Duration::from_secs(10)).unwrap().0;
        }
        assert!(asked.iter().all(|(chunk, _)| *chunk == 2));
        drop(asked);
        // None of them holds a thread.
        let whole = Operation::WriteZeroes { unmap: false };
        let others = [
            (100, Operation::Flush, 0, 0),
            (101, whole, 3 * CHUNK, OVERLAY_CHUNK as usize),
        ];
        let mut ended = Vec::new();
        for (token, operation, offset, len) in others {
            let mut request = request(0, operation, offset, 0);
            (request.token, request.len) = (token, len as u64);
            request.buffers.clear();
            submit(&mut *engine, request);
            reap_one(&mut *engine, &mut ended);
            assert_eq!(ended.pop().unwrap().request.token, token);
        }
        let contents = contents();
        while engine.in_flight() > 0 {
            let asked = std::mem::take(&mut *slow.asked.lock().unwrap());
            for (chunk, done) in asked {
                filling.put(chunk, chunk_of(&contents, chunk)).unwrap();
                done(Ok(()));
            }
            engine.reap(&mut ended);
        }
        assert_eq!(ended.len(), READS + 4);
        assert!(ended.iter().all(|ended| ended.result.is_ok()));
        drop(engine);
        for token in 0..READS {
            let at = read_at(token) as usize;
            assert_eq!(memory[token * 4096..][..4096], contents[at..][..4096], "{token}");
        }
        for offset in writes {
            let mut around = vec![0; 2048];
            let from = offset - 512;
            disk.read_at(&mut around, from).unwrap();
            let mut expected = contents[from as usize..][..2048].to_vec();
            expected[512..1024].fill(0xEE);
            assert_eq!(around, expected);
        }
    }
}

fn reap_one(engine: &mut dyn Engine, ended: &mut Vec<Completion>) {
    while ended.is_empty() {
        engine.sleep().unwrap();
        engine.reap(ended);
    }
}
