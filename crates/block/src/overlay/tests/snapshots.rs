//! Points in time and dirty maps, against plain memory: random writes, freezes, kills and power cuts, with a reader who
//! tells a repository what has changed, as the host agent does.

use std::sync::atomic::AtomicBool;

use tempfile::tempfile;

use super::full::on_small_disk;
use super::power::{Fuse, PowerFile};
use super::*;
use crate::SECTOR;
use crate::cipher::tests::cipher;
use dirty::{About, UNIT};
use frozen::{Frozen, ReadBase, ReadError};

const UNIT_LEN: usize = UNIT as usize;

/// What chunks and sizes are looked at: small chunks, chunks of a unit, chunks of several.
const SHAPES: [(u64, u64, u64); 3] = [
    // Bytes of a chunk, of the disk, of the base.
    (CHUNK, 2 * UNIT + 3 * SECTOR, UNIT + 5 * SECTOR),
    (UNIT, 4 * UNIT, 3 * UNIT - 7 * SECTOR),
    (2 * UNIT, 5 * UNIT + SECTOR, 3 * UNIT),
];
/// By how much a disk has grown at most.
const ROOM: u64 = UNIT;

fn reading(base: impl Store + 'static) -> ReadBase {
    Box::new(move |buf, offset| base.read_exact_at(buf, offset))
}

fn boxed(file: &File) -> Box<dyn Store> {
    Box::new(file.try_clone().unwrap())
}

/// A host with one volume, and a repository that believes what it is told.
struct World {
    data: PowerFile,
    map: PowerFile,
    base: PowerFile,
    image: Vec<u8>,
    base_cipher: Option<Arc<Cipher>>,
    cipher: Option<Arc<Cipher>>,
    dirty: File,
    point: Option<Point>,
    disk: Option<Overlay<PowerFile>>,
    /// The disk, as it should read.
    now: Vec<u8>,
    /// What the dirty map is relative to.
    stored: Vec<u8>,
    random: u64,
    snapshots: u64,
}

/// A point in time that is not stored yet.
struct Point {
    frozen: File,
    dirty: File,
    then: Vec<u8>,
}

/// One world in two; and of both, one in two has an encrypted base.
fn is_encrypted(seed: u64) -> bool {
    seed % 2 == 1
}

impl World {
    fn new(seed: u64) -> World {
        // Large chunks take long to fill.
        let shape = match seed % 10 {
            0 => 2,
            1 => 1,
            _ => 0,
        };
        let (chunk_size, size, base_size) = SHAPES[shape];
        let fuse = Fuse::default();
        fuse.never();
        let geometry = Geometry {
            size,
            base_size,
            chunk_size,
        };
        let mut map = vec![0; geometry.map_len() as usize];
        map[..512].copy_from_slice(&geometry.encode());
        let image = pattern(base_size);
        let base_cipher = (seed / 2 % 2 == 1).then(|| cipher(1));
        let mut base = image.clone();
        if let Some(cipher) = &base_cipher {
            cipher.encrypt(&mut base, 0).unwrap();
        }
        let mut now = image.clone();
        now.resize(size as usize, 0);
        let mut world = World {
            data: PowerFile::new(vec![0xBA; size as usize], &fuse),
            map: PowerFile::new(map, &fuse),
            base: PowerFile::new(base, &fuse),
            base_cipher,
            cipher: is_encrypted(seed).then(|| cipher(2)),
            dirty: tempfile().unwrap(),
            point: None,
            disk: None,
            now,
            stored: image.clone(),
            image,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            snapshots: 0,
        };
        world.begin_dirty();
        world.start();
        world
    }

    fn next(&mut self, below: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn size(&self) -> usize {
        self.now.len()
    }

    /// A dirty map relative to the image, as of a volume that never had one.
    fn begin_dirty(&mut self) {
        self.dirty = tempfile().unwrap();
        let about = About {
            base: "ami-1".to_owned(),
            boot: "1".to_owned(),
        };
        dirty::create(&self.dirty, &about, &self.map, true).unwrap();
        self.stored.clone_from(&self.image);
    }

    /// A monitor opens the disk, and finds its point in time again.
    fn start(&mut self) {
        let (dirty, side) = match &self.point {
            Some(point) => (&point.dirty, Some(("snap".to_owned(), boxed(&point.frozen)))),
            None => (&self.dirty, None),
        };
        let base = Base::whole(self.base.clone());
        let base = match &self.base_cipher {
            Some(cipher) => base.encrypted(Arc::clone(cipher)),
            None => base,
        };
        let disk = Overlay::over(self.data.clone(), self.map.clone(), Some(base)).unwrap();
        let disk = match &self.cipher {
            Some(cipher) => disk.encrypted(Arc::clone(cipher)),
            None => disk,
        };
        let disk = disk.tracked(boxed(dirty), side).unwrap();
        disk.refresh_size().unwrap();
        self.now = read(&disk, 0, disk.size() as usize);
        self.disk = Some(disk);
    }

    fn disk(&self) -> &Overlay<PowerFile> {
        self.disk.as_ref().unwrap()
    }

    fn range(&mut self) -> (u64, usize) {
        let size = self.size();
        let offset = self.next(size);
        let most = match self.next(200) {
            0 => 2 * UNIT_LEN,
            1..40 => 3 * CHUNK as usize,
            _ => 2 * SECTOR as usize,
        };
        let len = (self.next(most) + 1).min(size - offset);
        (offset as u64, len)
    }

    /// What an engine does: in place where it may.
    fn write(&mut self, content: &[u8], offset: u64) {
        let mut done = 0;
        while done < content.len() {
            let at = offset + done as u64;
            let left = (content.len() - done) as u64;
            let (len, ready) = self.disk().run(self.disk().ready(), at, left);
            let piece = &content[done..][..len as usize];
            match ready {
                true => self.disk().data.write_all_at(piece, at).unwrap(),
                false => self.disk().write_at(piece, at).unwrap(),
            }
            done += len as usize;
        }
        self.now[offset as usize..][..content.len()].copy_from_slice(content);
    }

    fn freeze(&mut self) {
        if self.point.is_some() {
            return;
        }
        let (frozen, dirty) = (tempfile().unwrap(), tempfile().unwrap());
        let about = About {
            base: "snap".to_owned(),
            boot: "1".to_owned(),
        };
        dirty::create(&dirty, &about, &self.map, false).unwrap();
        match self.disk.take() {
            // By its keeper, while nobody has it open.
            Some(disk) if self.next(4) == 0 => {
                drop(disk);
                frozen::freeze(frozen.try_clone().unwrap(), &self.data, &self.map).unwrap();
                // What was not flushed is lost with whoever had it open.
                self.point = Some(Point {
                    frozen,
                    dirty,
                    then: Vec::new(),
                });
                self.start();
                self.point.as_mut().unwrap().then = self.now.clone();
                return;
            }
            disk => self.disk = disk,
        }
        for _ in 0..2 {
            let freeze = Freeze {
                name: "snap".to_owned(),
                frozen: boxed(&frozen),
                dirty: boxed(&dirty),
            };
            self.disk().freeze(freeze).unwrap();
        }
        let then = self.now.clone();
        self.point = Some(Point { frozen, dirty, then });
    }

    fn reader(&self) -> Option<(Frozen, &Point)> {
        let point = self.point.as_ref()?;
        let data = Box::new(self.data.clone());
        let base = Sectors {
            file: self.base.clone(),
            cipher: self.base_cipher.clone(),
        };
        let reader = Frozen::open(boxed(&point.frozen), data, Some(reading(base))).unwrap();
        let reader = match &self.cipher {
            Some(cipher) => reader.encrypted(Arc::clone(cipher)),
            None => reader,
        };
        Some((reader, point))
    }

    /// Looks at a unit while it is frozen.
    fn look(&mut self) {
        let nth = self.next(1 << 16);
        let Some((reader, point)) = self.reader() else {
            return;
        };
        let units = point.then.len().div_ceil(UNIT_LEN);
        let unit = nth % units;
        let found = reader.read_unit(unit as u64).unwrap();
        let expected = point.then.chunks(UNIT_LEN).nth(unit).unwrap();
        assert!(found == expected, "unit {unit} of {units} is not as it was");
    }

    /// Tells the repository what has changed, and goes on from there.
    fn store(&mut self) {
        let Some((reader, point)) = self.reader() else {
            return;
        };
        let size = reader.size();
        assert_eq!(size, point.then.len() as u64);
        let mut stored = self.stored.clone();
        // A repository has the unit at an end as long as it was told.
        let end = stored.len();
        let whole = end.next_multiple_of(UNIT_LEN).min(size as usize);
        stored.resize(whole, 0xDB);
        stored.resize(size as usize, 0);
        let mut units = dirty::dirty_units(&self.dirty, size).unwrap();
        if end == self.image.len() {
            units.push((end / UNIT_LEN) as u64);
        }
        for unit in units {
            let contents = reader.read_unit(unit).unwrap();
            stored[unit as usize * UNIT_LEN..][..contents.len()].copy_from_slice(&contents);
        }
        assert!(stored == point.then, "the snapshot is another disk");
        let lost = reader.units_beyond(&self.map).unwrap();
        dirty::add(&point.dirty, &lost).unwrap();
        self.stored = stored;
        self.dirty = self.point.take().unwrap().dirty;
        self.disk().thaw("snap");
        self.snapshots += 1;
    }

    fn abandon(&mut self) {
        let Some(point) = self.point.take() else { return };
        let units = dirty::dirty_units(&self.dirty, self.size() as u64).unwrap();
        dirty::add(&point.dirty, &units).unwrap();
        self.dirty = point.dirty;
        self.disk().thaw("another");
        self.disk().thaw("snap");
    }

    fn step(&mut self, count: usize) {
        match self.next(100) {
            0..55 => {
                let (offset, len) = self.range();
                let mut content = vec![0; len];
                for (nth, piece) in content.chunks_mut(97).enumerate() {
                    piece.fill((count * 31 + nth + 3) as u8);
                }
                self.write(&content, offset);
            }
            55..63 => {
                let (offset, len) = self.range();
                let unmap = self.next(2) == 0;
                self.disk().write_zeroes(offset, len as u64, unmap).unwrap();
                self.now[offset as usize..][..len].fill(0);
            }
            63..70 => {
                let (offset, len) = self.range();
                self.disk().discard(offset, len as u64).unwrap();
                let found = read(self.disk(), offset, len);
                self.now[offset as usize..][..len].copy_from_slice(&found);
            }
            70..78 => self.disk().flush().unwrap(),
            78..82 => self.freeze(),
            82..91 => self.look(),
            91..94 => self.store(),
            94 => self.abandon(),
            95..97 => {
                self.disk = None;
                self.start();
            }
            97 => {
                self.disk = None;
                let (data, map) = (self.data.clone(), self.map.clone());
                data.cut(|below| self.next(below));
                map.cut(|below| self.next(below));
                self.point = None;
                self.begin_dirty();
                self.start();
            }
            98 => {
                let most = (2 * UNIT + 3 * SECTOR).max(self.base.size().unwrap()) + ROOM;
                let size = (self.size() as u64 + (self.next(100) as u64 + 1) * SECTOR).min(most);
                if size > self.size() as u64 {
                    self.data.reserve(size).unwrap();
                    assert_eq!(self.disk().refresh_size().unwrap(), size);
                    self.now.resize(size as usize, 0);
                }
            }
            _ => {
                let (offset, len) = self.range();
                let found = read(self.disk(), offset, len);
                assert_eq!(found, self.now[offset as usize..][..len]);
            }
        }
    }
}

/// `HEARTH_SNAPSHOT_OPERATIONS` says how many, 100,000 by default; `HEARTH_SNAPSHOT_SEED` begins elsewhere.
#[test]
fn snapshots_of_a_disk_that_is_written_killed_and_cut_are_what_it_held() {
    const PER_WORLD: usize = 1000;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let operations = number("HEARTH_SNAPSHOT_OPERATIONS").unwrap_or(100_000);
    let first = number("HEARTH_SNAPSHOT_SEED").unwrap_or(0);
    let (mut snapshots, mut encrypted) = (0, 0);
    for seed in first..first + operations.div_ceil(PER_WORLD as u64) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..PER_WORLD).for_each(|count| world.step(count));
            world.freeze();
            world.store();
            world.snapshots
        });
        encrypted += if is_encrypted(seed) { PER_WORLD } else { 0 };
        snapshots += outcome.unwrap_or_else(|panic| {
            eprintln!("with HEARTH_SNAPSHOT_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
    }
    eprintln!(
        "MEASURED: {operations} operations, {encrypted} of them on encrypted disks, {snapshots} snapshots"
    );
    assert!(snapshots * 200 > operations, "{snapshots} snapshots");
}

fn fresh_dirty(map: &File) -> File {
    let dirty = tempfile().unwrap();
    let about = About {
        base: String::new(),
        boot: "1".to_owned(),
    };
    dirty::create(&dirty, &about, map, true).unwrap();
    assert_eq!(dirty::about(&dirty).unwrap(), Some(about));
    dirty
}

#[test]
fn a_point_in_time_is_read_while_threads_write() {
    const SIZE: u64 = 8 * UNIT;
    let files = fixture(SIZE / 2, SIZE);
    let disk = open(&files)
        .unwrap()
        .tracked(boxed(&fresh_dirty(&files.1)), None)
        .unwrap();
    for round in 0..20_u64 {
        let filler = vec![round as u8 + 1; CHUNK as usize];
        (0..SIZE / CHUNK)
            .filter(|chunk| chunk % 3 != 0)
            .for_each(|chunk| disk.write_at(&filler, chunk * CHUNK).unwrap());
        let then = read(&disk, 0, SIZE as usize);
        let (frozen, dirty) = (tempfile().unwrap(), fresh_dirty(&files.1));
        disk.freeze(Freeze {
            name: "snap".to_owned(),
            frozen: boxed(&frozen),
            dirty: boxed(&dirty),
        })
        .unwrap();
        let reader = Frozen::open(
            boxed(&frozen),
            boxed(&files.0),
            Some(reading(files.2.try_clone().unwrap())),
        )
        .unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (disk, over) = (&disk, &over);
                scope.spawn(move || {
                    let mut at = thread + round;
                    while !over.load(Ordering::Relaxed) {
                        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(thread);
                        let offset = (at >> 33) % (SIZE / SECTOR) * SECTOR;
                        disk.write_at(&[0xEE; 512], offset).unwrap();
                    }
                });
            }
            for (unit, expected) in then.chunks(UNIT_LEN).enumerate() {
                let found = reader.read_unit(unit as u64).unwrap();
                assert!(found == expected, "unit {unit} in round {round}");
            }
            over.store(true, Ordering::Relaxed);
        });
        disk.thaw("snap");
    }
}

#[test]
fn a_disk_that_is_full_under_the_copies_breaks_the_snapshot_and_not_the_guest() {
    let ran = on_small_disk(1 << 20, |dir| {
        const SIZE: u64 = 4 * UNIT;
        let (data, map) = (tempfile().unwrap(), tempfile().unwrap());
        create_chunked(&data, &map, 0, SIZE, 4 * CHUNK).unwrap();
        let dirty = fresh_dirty(&map);
        let disk = Overlay::open(data.try_clone().unwrap(), map.try_clone().unwrap(), None).unwrap();
        let disk = disk.tracked(boxed(&dirty), None).unwrap();
        disk.write_at(&vec![1; SIZE as usize], 0).unwrap();
        let frozen = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join("frozen"))
            .unwrap();
        disk.freeze(Freeze {
            name: "snap".to_owned(),
            frozen: boxed(&frozen),
            dirty: boxed(&fresh_dirty(&map)),
        })
        .unwrap();
        let reader = Frozen::open(boxed(&frozen), boxed(&data), None).unwrap();
        disk.write_at(&[2; 512], 0).unwrap();
        assert_eq!(reader.read_unit(0).unwrap(), vec![1; UNIT_LEN]);
        disk.write_at(&vec![2; SIZE as usize], 0).unwrap();
        assert_eq!(read(&disk, 0, SIZE as usize), vec![2; SIZE as usize]);
        assert!(matches!(reader.read_unit(0), Err(ReadError::Broken)));
        // Whoever opens the disk next knows it, too.
        drop(disk);
        let disk = Overlay::open(data.try_clone().unwrap(), map.try_clone().unwrap(), None).unwrap();
        let side = Some(("snap".to_owned(), boxed(&frozen)));
        let disk = disk.tracked(boxed(&dirty), side).unwrap();
        disk.write_at(&vec![3; SIZE as usize], 0).unwrap();
    });
    if let Err(e) = ran {
        eprintln!("SKIPPED: a_disk_that_is_full_under_the_copies: cannot mount a tmpfs ({e}); run as root");
    }
}

#[test]
fn files_that_are_no_dirty_map_or_of_no_point_in_time_are_told_from_those_that_are() {
    let files = fixture(UNIT, 4 * UNIT);
    let dirty = fresh_dirty(&files.1);
    let long = About {
        base: "x".repeat(65),
        boot: String::new(),
    };
    assert!(dirty::write_about(&dirty, &long).is_err());
    dirty::add(&dirty, &[0, 1, 3]).unwrap();
    assert_eq!(dirty::dirty_units(&dirty, 4 * UNIT).unwrap(), [0, 1, 3]);
    assert_eq!(dirty::dirty_units(&dirty, 2 * UNIT).unwrap(), [0, 1]);
    assert_eq!(dirty::dirty_units(&dirty, 1 << 40).unwrap(), [0, 1, 3]);
    for (at, byte) in [(0, b'X'), (8, 9), (20, 1)] {
        let dirty = fresh_dirty(&files.1);
        Store::write_all_at(&dirty, &[byte], at).unwrap();
        assert_eq!(dirty::about(&dirty).unwrap(), None, "{at}");
    }
    assert_eq!(dirty::about(&tempfile().unwrap()).unwrap(), None);

    let frozen = tempfile().unwrap();
    assert!(!frozen::is_frozen(&frozen).unwrap());
    frozen.set_len(1 << 20).unwrap();
    assert!(!frozen::is_frozen(&frozen).unwrap());
    frozen::freeze(frozen.try_clone().unwrap(), &files.0, &files.1).unwrap();
    assert!(frozen::is_frozen(&frozen).unwrap());
}
