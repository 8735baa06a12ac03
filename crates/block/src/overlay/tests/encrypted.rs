//! What lies in the files of an encrypted disk.

use super::super::frozen::Frozen;
use super::*;
use crate::SECTOR;
use crate::cipher::tests::cipher;
use crate::overlay::dirty::{self, About, UNIT};

const SIZE: u64 = 4 * UNIT;
const BASE: u64 = 2 * UNIT + 3 * SECTOR;

/// What all that is written begins each of its blocks of 16 bytes with.
const MARK: &[u8; 8] = b"PLAINTXT";

fn plain(len: usize, seed: u64) -> Vec<u8> {
    let block = |nth: u64| [*MARK, (nth ^ seed << 32).to_le_bytes()].concat();
    (0..len as u64 / 16).flat_map(block).collect()
}

fn contents(file: &File) -> Vec<u8> {
    let mut contents = vec![0; Store::size(file).unwrap() as usize];
    Store::read_exact_at(file, &mut contents, 0).unwrap();
    contents
}

fn has_plaintext(file: &File) -> bool {
    contents(file).windows(MARK.len()).any(|found| found == MARK)
}

/// An encrypted disk on a base of plaintext that is encrypted too, tracked; with its files.
struct Laid {
    files: [File; 4],
    disk: Overlay,
}

fn laid() -> Laid {
    let files = [(); 4].map(|()| tempfile().unwrap());
    let [data, map, base, dirty] = files.each_ref().map(|file| file.try_clone().unwrap());
    let mut image = plain(BASE as usize, 1);
    cipher(1).encrypt(&mut image, 0).unwrap();
    Store::write_all_at(&base, &image, 0).unwrap();
    create_chunked(&data, &map, BASE, SIZE, CHUNK).unwrap();
    let about = About {
        base: "ami-1".to_owned(),
        boot: "1".to_owned(),
    };
    dirty::create(&dirty, &about, &map, true).unwrap();
    let base = Base::whole(base).encrypted(cipher(1));
    let disk = Overlay::over(data, map, Some(base)).unwrap().encrypted(cipher(2));
    let disk = disk.tracked(Box::new(dirty), None).unwrap();
    Laid { files, disk }
}

#[test]
fn no_file_of_an_encrypted_disk_holds_plaintext() {
    let Laid { files, disk } = laid();
    let mut now = plain(BASE as usize, 1);
    now.resize(SIZE as usize, 0);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (frozen, later) = (tempfile().unwrap(), tempfile().unwrap());
    dirty::create(
        &later,
        &About {
            base: "snap-1".to_owned(),
            boot: "1".to_owned(),
        },
        &files[1],
        false,
    )
    .unwrap();
    let mut then = Vec::new();
    for count in 0..2000 {
        // Parts of sectors, too.
        let offset = next(SIZE / 16) * 16;
        let len = (next(3 * CHUNK / 16) * 16 + 16).min(SIZE - offset);
        let written = plain(len as usize, count + 2);
        disk.write_at(&written, offset).unwrap();
        now[offset as usize..][..len as usize].copy_from_slice(&written);
        if count == 1000 {
            then.clone_from(&now);
            disk.freeze(Freeze {
                name: "snap-1".to_owned(),
                frozen: Box::new(frozen.try_clone().unwrap()),
                dirty: Box::new(later.try_clone().unwrap()),
            })
            .unwrap();
        }
    }
    disk.flush().unwrap();
    assert!(read(&disk, 0, SIZE as usize) == now);
    let data = Box::new(files[0].try_clone().unwrap());
    let base = Base::whole(files[2].try_clone().unwrap()).encrypted(cipher(1));
    let reading: frozen::ReadBase = Box::new(move |buf, at| base.read_exact_at(buf, at));
    let side = Box::new(frozen.try_clone().unwrap());
    let point = Frozen::open(side, data, Some(reading))
        .unwrap()
        .encrypted(cipher(2));
    let found: Vec<u8> = (0..SIZE / UNIT)
        .flat_map(|unit| point.read_unit(unit).unwrap())
        .collect();
    assert!(found == then);
    for (file, what) in files
        .iter()
        .chain([&frozen, &later])
        .zip(["data", "map", "base", "dirty", "frozen", "later"])
    {
        assert!(!has_plaintext(file), "{what}");
    }
    // The search finds what it looks for.
    let plaintext = tempfile().unwrap();
    Store::write_all_at(&plaintext, &now, 0).unwrap();
    assert!(has_plaintext(&plaintext));
}

/// What zeros, discards and growth leave in the data file is a hole, and no noise.
#[test]
fn holes_of_an_encrypted_disk_are_zeros() {
    let Laid { files, disk } = laid();
    disk.write_at(&plain(SIZE as usize, 2), 0).unwrap();
    for unmap in [false, true] {
        disk.write_zeroes(3 * CHUNK + 512, 5 * CHUNK, unmap).unwrap();
        assert_eq!(
            read(&disk, 3 * CHUNK + 512, 5 * CHUNK as usize),
            [0; 5 * CHUNK as usize]
        );
        // Parts of sectors.
        let mut expected = read(&disk, 20 * CHUNK, 4096);
        disk.write_zeroes(20 * CHUNK + 100, 3000, unmap).unwrap();
        expected[100..3100].fill(0);
        assert_eq!(read(&disk, 20 * CHUNK, 4096), expected);
        disk.write_zeroes(20 * CHUNK + 3, 5, unmap).unwrap();
        expected[3..8].fill(0);
        assert_eq!(read(&disk, 20 * CHUNK, 4096), expected);
    }
    disk.write_zeroes(40 * CHUNK, CHUNK, true).unwrap();
    assert_eq!(
        contents(&files[0])[40 * CHUNK as usize..][..CHUNK as usize],
        [0; CHUNK as usize]
    );

    let size = SIZE + 3 * SECTOR;
    files[0].set_len(size).unwrap();
    assert_eq!(disk.refresh_size().unwrap(), size);
    assert_eq!(read(&disk, SIZE, 3 * SECTOR as usize), [0; 3 * SECTOR as usize]);
}

/// A disk that is opened under another key is another disk, and says nothing of the first.
#[test]
fn another_key_reads_noise() {
    let Laid { files, disk } = laid();
    disk.write_at(&plain(SIZE as usize, 2), 0).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let [data, map, base, _] = files;
    let disk = Overlay::open(data, map, base).unwrap().encrypted(cipher(3));
    let found = read(&disk, 0, SIZE as usize);
    assert!(!found.windows(MARK.len()).any(|found| found == MARK));
}
