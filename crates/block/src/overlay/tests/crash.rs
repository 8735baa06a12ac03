//! The crash rule as a property: random writes, flushes, kills and power cuts against a model.

use proptest::prelude::*;

use super::power::{Fuse, PowerFile};
use super::*;
use crate::SECTOR;
use crate::cipher::tests::cipher;

const SIZE: u64 = 9 * CHUNK + 512;
const BASE: u64 = 6 * CHUNK + 1024;

#[derive(Debug, Clone)]
enum Op {
    Write {
        offset: u64,
        len: usize,
    },
    Read {
        offset: u64,
        len: usize,
    },
    Zero {
        offset: u64,
        len: usize,
    },
    Discard {
        offset: u64,
        len: usize,
    },
    Flush,
    /// `kill -9`: the page cache survives, the process does not.
    Kill,
    /// The power goes after so many more calls to the files.
    Cut {
        after: u32,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0..SIZE, 1..3 * CHUNK as usize);
    let aligned = || (0..SIZE / SECTOR, 1..40usize).prop_map(|(s, n)| (s * SECTOR, n * SECTOR as usize));
    let op = prop_oneof![
        6 => range().prop_map(|(offset, len)| Op::Write { offset, len }),
        6 => aligned().prop_map(|(offset, len)| Op::Write { offset, len }),
        3 => range().prop_map(|(offset, len)| Op::Read { offset, len }),
        2 => range().prop_map(|(offset, len)| Op::Zero { offset, len }),
        2 => aligned().prop_map(|(offset, len)| Op::Zero { offset, len }),
        3 => aligned().prop_map(|(offset, len)| Op::Discard { offset, len }),
        3 => Just(Op::Flush),
        1 => Just(Op::Kill),
        2 => (0..12u32).prop_map(|after| Op::Cut { after }),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What each sector may hold after a crash: everything it has held since the last flush.
struct Model {
    now: Vec<u8>,
    history: Vec<Vec<Vec<u8>>>,
}

impl Model {
    fn new(now: Vec<u8>) -> Model {
        let mut model = Model {
            history: vec![Vec::new(); now.len() / SECTOR as usize],
            now,
        };
        model.remember();
        model
    }

    fn remember(&mut self) {
        for (held, sector) in self.history.iter_mut().zip(self.now.chunks(SECTOR as usize)) {
            if held.last().is_none_or(|last| last != sector) {
                held.push(sector.to_vec());
            }
        }
    }

    fn write(&mut self, buf: &[u8], offset: u64) {
        self.now[offset as usize..][..buf.len()].copy_from_slice(buf);
        self.remember();
    }

    fn write_or_cut(&mut self, buf: &[u8], offset: u64, whole: bool) {
        let before = self.now.clone();
        self.write(buf, offset);
        if !whole {
            // Cut short: each sector has the old content or the new one.
            self.now = before;
            self.remember();
        }
    }

    fn flushed(&mut self) {
        self.history.iter_mut().for_each(Vec::clear);
        self.remember();
    }

    /// Checks what was found after a crash, and goes on from it: it may not be durable, so nothing is forgotten.
    fn crashed(&mut self, found: Vec<u8>) -> Result<(), TestCaseError> {
        for (sector, content) in found.chunks(SECTOR as usize).enumerate() {
            prop_assert!(
                self.history[sector].iter().any(|held| held == content),
                "sector {sector} holds what it never held since the last flush"
            );
        }
        self.now = found;
        self.remember();
        Ok(())
    }
}

struct Machine {
    fuse: Fuse,
    data: PowerFile,
    map: PowerFile,
    base: PowerFile,
    encryption: Encryption,
}

/// What of it lies encrypted: the base, the overlay.
type Encryption = (bool, bool);

impl Machine {
    fn new(encryption: Encryption) -> Machine {
        let fuse = Fuse::default();
        fuse.never();
        let geometry = Geometry {
            size: SIZE,
            base_size: BASE,
            chunk_size: CHUNK,
        };
        let mut map = vec![0; geometry.map_len() as usize];
        map[..512].copy_from_slice(&geometry.encode());
        // Garbage where nothing is present: it must never be seen.
        let data = PowerFile::new(vec![0xBA; SIZE as usize], &fuse);
        Machine {
            data,
            map: PowerFile::new(map, &fuse),
            base: PowerFile::new(image(encryption), &fuse),
            fuse,
            encryption,
        }
    }

    fn open(&self) -> Overlay<PowerFile> {
        self.fuse.never();
        let base = Base::whole(self.base.clone());
        let base = match self.encryption.0 {
            true => base.encrypted(cipher(1)),
            false => base,
        };
        let disk = Overlay::over(self.data.clone(), self.map.clone(), Some(base)).unwrap();
        match self.encryption.1 {
            true => disk.encrypted(cipher(2)),
            false => disk,
        }
    }
}

/// As it lies in the base's file.
fn image(encryption: Encryption) -> Vec<u8> {
    let mut image = pattern(BASE);
    if encryption.0 {
        cipher(1).encrypt(&mut image, 0).unwrap();
    }
    image
}

fn run(ops: Vec<Op>, seed: u64, encryption: Encryption) -> Result<(), TestCaseError> {
    let machine = Machine::new(encryption);
    let mut model = Model::new({
        let mut content = pattern(BASE);
        content.resize(SIZE as usize, 0);
        content
    });
    let mut random = seed | 1;
    let mut next = move |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut disk = machine.open();
    for (count, op) in ops.into_iter().enumerate() {
        let mut alive = true;
        match op {
            Op::Write { offset, len } => {
                let len = len.min((SIZE - offset) as usize);
                let buf: Vec<u8> = (0..len).map(|i| (count * 31 + i / 97 + 3) as u8).collect();
                alive = disk.write_at(&buf, offset).is_ok();
                model.write_or_cut(&buf, offset, alive);
            }
            Op::Zero { offset, len } => {
                let len = len.min((SIZE - offset) as usize);
                alive = disk.write_zeroes(offset, len as u64, true).is_ok();
                model.write_or_cut(&vec![0; len], offset, alive);
            }
            Op::Discard { offset, len } => {
                let len = len.min((SIZE - offset) as usize);
                alive = disk.discard(offset, len as u64).is_ok();
                let before = model.now.clone();
                model.write(&vec![0; len], offset);
                if alive {
                    let mut found = vec![0; len];
                    alive = disk.read_at(&mut found, offset).is_ok();
                    if alive {
                        let before = &before[offset as usize..][..len];
                        for (old, new) in before.chunks(512).zip(found.chunks(512)) {
                            prop_assert!(new == old || new.iter().all(|&byte| byte == 0));
                        }
                        model.write(&found, offset);
                    }
                }
                if !alive {
                    model.now = before;
                    model.remember();
                }
            }
            Op::Read { offset, len } => {
                let len = len.min((SIZE - offset) as usize);
                let mut buf = vec![0; len];
                alive = disk.read_at(&mut buf, offset).is_ok();
                if alive {
                    prop_assert_eq!(&buf[..], &model.now[offset as usize..][..len]);
                }
            }
            Op::Flush => {
                alive = disk.flush().is_ok();
                if alive {
                    model.flushed();
                }
            }
            Op::Kill => {
                drop(disk);
                disk = machine.open();
                model.crashed(read(&disk, 0, SIZE as usize))?;
            }
            Op::Cut { after } => machine.fuse.after(after),
        }
        if !alive {
            drop(disk);
            machine.data.cut(&mut next);
            machine.map.cut(&mut next);
            disk = machine.open();
            model.crashed(read(&disk, 0, SIZE as usize))?;
        }
    }
    machine.fuse.never();
    prop_assert_eq!(read(&disk, 0, SIZE as usize), model.now);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_crash_rule_holds(ops in ops(), seed in any::<u64>(), encryption in any::<Encryption>()) {
        run(ops, seed, encryption)?;
    }
}

/// The simulation must be able to find the fault that the order in `flush` prevents.
#[test]
fn the_simulation_finds_a_map_that_runs_ahead_of_its_data() {
    let machine = Machine::new((false, false));
    let disk = machine.open();
    disk.write_at(&[5; 512], 0).unwrap();
    write_states(&machine.map, &[0]).unwrap();
    machine.map.sync_data().unwrap();
    drop(disk);
    machine.data.cut(|_| 0);
    assert_eq!(read(&machine.open(), 0, 512), [0xBA; 512]);
}

#[test]
fn after_a_failed_sync_no_flush_succeeds() {
    let machine = Machine::new((false, false));
    let disk = machine.open();
    disk.write_at(&[5; 512], 0).unwrap();
    machine.fuse.after(0);
    disk.flush().unwrap_err();
    machine.fuse.never();
    assert!(disk.flush().unwrap_err().to_string().contains("may be lost"));
}
