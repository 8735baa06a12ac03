use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

mod shaky;

use shaky::Shaky;

/// Chunks by number; the others are zeros.
type Disk = BTreeMap<u64, u64>;

/// One of a few chunks, that are as different as can be.
fn chunk(of: u64) -> Bytes {
    let mut bytes = vec![0; CHUNK];
    for (at, byte) in bytes.iter_mut().enumerate().step_by(97) {
        *byte = (of.wrapping_mul(0x9e37_79b9).wrapping_add(at as u64) >> 7) as u8;
    }
    bytes[..8].copy_from_slice(&of.to_le_bytes());
    bytes.into()
}

fn in_memory() -> Repository {
    Repository::new(Arc::new(InMemory::new()))
}

type Key = Option<Arc<DataKey>>;

fn key(of: u8) -> Key {
    Some(Arc::new(DataKey::new(&[of; DataKey::LENGTH])))
}

async fn write(repository: &Repository, base: Option<&str>, name: &str, disk: &Disk, size: u64) -> Written {
    write_under(repository, &None, base, name, disk, size).await
}

async fn write_under(
    repository: &Repository,
    key: &Key,
    base: Option<&str>,
    name: &str,
    disk: &Disk,
    size: u64,
) -> Written {
    let mut writer = repository.write(base, key.clone()).await.unwrap();
    for (index, of) in disk {
        match of {
            0 => writer.zero(*index).await.unwrap(),
            of => writer.put(*index, chunk(*of)).await.unwrap(),
        }
    }
    writer.finish(name, size).await.unwrap().1
}

/// Reads a snapshot in two ways, which have to agree.
async fn read(repository: &Repository, name: &str) -> Disk {
    read_under(repository, &None, name).await
}

async fn read_under(repository: &Repository, key: &Key, name: &str) -> Disk {
    let reader = repository.read(name, key.clone()).await.unwrap();
    let mut disk = Disk::new();
    let mut at = 0;
    while let Some((index, id)) = reader.next(at).await.unwrap() {
        let chunk = reader.named(id).await.unwrap();
        assert_eq!(reader.chunk(index).await.unwrap().as_ref(), Some(&chunk));
        disk.insert(index, u64::from_le_bytes(chunk[..8].try_into().unwrap()));
        at = index + 1;
    }
    disk
}

/// Paths of all objects.
async fn objects(repository: &Repository) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for room in ["chunks", "nodes", "snapshots", "pins", "condemned"] {
        let found = repository.objects.list(room).await.unwrap();
        all.extend(found.into_iter().map(|object| object.path.to_string()));
    }
    all
}

#[tokio::test]
async fn a_snapshot_costs_what_changed_whatever_the_disks_size() {
    let mut costs = Vec::new();
    for size in [1 << 30, 1 << 40] {
        let repository = in_memory();
        let last = size / CHUNK as u64 - 1;
        let mut disk: Disk = (0..100)
            .map(|index| (index * 17 % (last + 1), index + 1))
            .collect();
        disk.insert(last, 4711);
        let first = write(&repository, None, "snap-1", &disk, size).await;
        assert_eq!((first.chunks, first.new_chunks), (101, 101));
        let change = Disk::from([(3, 5000), (last, 4712), (17, 0), (34, 1)]);
        let second = write(&repository, Some("snap-1"), "snap-2", &change, size).await;
        assert_eq!(
            (second.chunks, second.new_chunks),
            (3, 2),
            "one is known from elsewhere"
        );
        costs.push(second.new_bytes);
        let mut after = disk.clone();
        after.extend(change);
        after.retain(|_, of| *of != 0);
        assert_eq!(read(&repository, "snap-1").await, disk);
        assert_eq!(read(&repository, "snap-2").await, after);
        // Of the same contents nothing is stored, whoever it is.
        let third = write(&repository, None, "snap-3", &after, size).await;
        assert_eq!((third.new_chunks, third.new_bytes), (0, 0));
        assert_eq!(
            repository.snapshot("snap-3").await.unwrap(),
            repository.snapshot("snap-2").await.unwrap()
        );
    }
    let [small, large] = costs[..] else { panic!() };
    assert!(
        large <= small + 2 * 17_408,
        "{small} bytes of 1 GiB, {large} of 1 TiB"
    );
}

#[tokio::test]
async fn names_sizes_and_chunks_are_checked() {
    let repository = in_memory();
    let one = Disk::from([(1, 1)]);
    write(&repository, None, "snap-1", &one, 1 << 20).await;
    // Whoever was cut short does it again.
    write(&repository, None, "snap-1", &one, 1 << 20).await;
    let with = async |disk: &Disk, name: &str, size: u64| {
        let mut writer = repository.write(None, None).await.unwrap();
        for (index, of) in disk {
            writer.put(*index, chunk(*of)).await?;
        }
        writer.finish(name, size).await
    };
    let other = Disk::from([(1, 2)]);
    assert!(matches!(
        with(&other, "snap-1", 1 << 20).await,
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        with(&one, "snap-1", 2 << 20).await,
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        with(&one, "snap-2", 1).await,
        Err(Error::Outside { index: 1 })
    ));
    assert!(matches!(
        with(&one, "snap-2", u64::MAX).await,
        Err(Error::Outside { .. })
    ));
    for name in ["", "../x", "a/b", "A", "snap_1", &"x".repeat(65)] {
        assert!(
            matches!(with(&one, name, 1 << 20).await, Err(Error::BadName(_))),
            "{name}"
        );
        assert!(
            matches!(repository.delete(name).await, Err(Error::BadName(_))),
            "{name}"
        );
    }
    let mut writer = repository.write(None, None).await.unwrap();
    assert!(matches!(
        writer.put(0, Bytes::from_static(b"x")).await,
        Err(Error::ChunkSize { found: 1 })
    ));
    assert!(matches!(
        writer.put(MAX_CHUNKS, chunk(1)).await,
        Err(Error::Outside { .. })
    ));
    assert!(matches!(
        repository.write(Some("snap-9"), None).await,
        Err(Error::NoSuchSnapshot(_))
    ));
    // A disk may grow, and does not shrink.
    let grown = repository
        .write(Some("snap-1"), None)
        .await
        .unwrap()
        .finish("snap-3", 4 << 20)
        .await;
    assert_eq!(grown.unwrap().0.size, 4 << 20);
    let shrunk = repository
        .write(Some("snap-3"), None)
        .await
        .unwrap()
        .finish("snap-4", 1 << 20)
        .await;
    assert!(matches!(shrunk, Err(Error::Outside { .. })));
}

#[tokio::test]
async fn what_was_not_finished_is_removed_when_it_was_silent_for_long() {
    let repository = in_memory();
    write(&repository, None, "snap-1", &Disk::from([(0, 1)]), 1 << 20).await;
    let before = objects(&repository).await;
    let mut writer = repository.write(Some("snap-1"), None).await.unwrap();
    for index in 0..70 {
        writer.put(index, chunk(index + 10)).await.unwrap();
    }
    let alive = repository.collect(|| true).await.unwrap();
    assert_eq!(alive.removed, 0);
    let mut dead = repository.write(Some("snap-1"), None).await.unwrap();
    dead.put(1, chunk(9)).await.unwrap();
    let collected = repository.collect_silent(Duration::ZERO, || true).await.unwrap();
    assert_eq!(collected.removed, 64);
    assert_eq!(objects(&repository).await, before);
    assert!(matches!(
        writer.finish("snap-2", 1 << 30).await,
        Err(Error::Expired)
    ));
    assert!(matches!(
        dead.finish("snap-3", 1 << 30).await,
        Err(Error::Expired)
    ));
    repository.delete("snap-1").await.unwrap();
    repository.collect_silent(Duration::ZERO, || true).await.unwrap();
    assert_eq!(objects(&repository).await, BTreeSet::new());
}

#[tokio::test]
async fn what_was_given_up_or_refused_goes_with_the_next_collection() {
    let repository = in_memory();
    let mut writer = repository.write(None, None).await.unwrap();
    for index in 0..70 {
        writer.put(index, chunk(index + 10)).await.unwrap();
    }
    drop(writer);
    let mut writer = repository.write(None, None).await.unwrap();
    writer.put(5, chunk(1)).await.unwrap();
    assert!(writer.finish("snap-1", 1).await.is_err());
    while !repository.objects.list("pins").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    repository.collect(|| true).await.unwrap();
    assert_eq!(objects(&repository).await, BTreeSet::new());
}

#[tokio::test]
async fn damage_is_found_named_and_repaired_and_nothing_is_collected_meanwhile() {
    damaged(None).await;
    damaged(key(1)).await;
}

async fn damaged(key: Key) {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = Repository::in_directory(dir.path()).unwrap();
    let copy = Repository::in_directory(other.path()).unwrap();
    let disk: Disk = (0..20).map(|index| (index * 600, index + 1)).collect();
    for repository in [&repository, &copy] {
        write_under(repository, &key, None, "snap-1", &disk, 16 << 30).await;
    }
    write_under(
        &repository,
        &key,
        Some("snap-1"),
        "snap-2",
        &Disk::from([(0, 77)]),
        16 << 30,
    )
    .await;
    assert_eq!(read_under(&repository, &key, "snap-1").await, disk);
    assert_eq!(repository.scrub(None).await.unwrap().damages, []);
    let reader = repository.read("snap-1", key.clone()).await.unwrap();
    let flipped = name::Name::chunk(reader.chunk_id(600).await.unwrap().unwrap());
    let lost = name::Name::chunk(reader.chunk_id(0).await.unwrap().unwrap());
    let node = {
        let root = tree::Node::load(&repository.objects, reader.snapshot().root.unwrap())
            .await
            .unwrap();
        let middle = tree::Node::load(&repository.objects, root.children()[0].1)
            .await
            .unwrap();
        name::Name::node(middle.children()[3].1)
    };
    for name in [flipped, node] {
        let path = dir.path().join(name.path().as_ref());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::remove_file(dir.path().join(lost.path().as_ref())).unwrap();
    let served = reader.chunk(600).await.unwrap_err();
    assert!(matches!(&served, Error::Damaged { object, .. } if *object == flipped.path().to_string()));
    repository.delete("snap-2").await.unwrap();
    assert!(matches!(
        repository.collect(|| true).await,
        Err(Error::Damaged { .. })
    ));
    let found = repository.scrub(None).await.unwrap();
    let named: BTreeSet<&str> = found
        .damages
        .iter()
        .map(|damage| damage.object.as_str())
        .collect();
    let expected = [flipped, lost, node].map(|name| name.path().to_string());
    assert_eq!(named, expected.iter().map(String::as_str).collect());
    assert!(
        found
            .damages
            .iter()
            .all(|damage| damage.snapshots.contains("snap-1") && !damage.repaired)
    );
    let surveyed = repository.survey().await.unwrap();
    let damage = surveyed.snapshots["snap-1"].damage.as_deref();
    assert!(damage.is_some_and(|damage| damage.contains(node.path().as_ref())));
    let repaired = repository.scrub(Some(&copy)).await.unwrap();
    assert!(
        repaired.damages.iter().all(|damage| damage.repaired),
        "{repaired:?}"
    );
    assert_eq!(repository.scrub(None).await.unwrap().damages, []);
    assert_eq!(read_under(&repository, &key, "snap-1").await, disk);
    assert_eq!(
        repository.collect(|| true).await.unwrap().removed,
        4,
        "a chunk and three nodes of snap-2"
    );
}

#[tokio::test]
async fn data_keys_keep_disks_apart() {
    let repository = in_memory();
    let disk: Disk = (0..5).map(|index| (index, index + 1)).collect();
    let (own, other) = (key(1), key(2));
    let plain = write(&repository, None, "plain", &disk, 1 << 30).await;
    let first = write_under(&repository, &own, None, "own-1", &disk, 1 << 30).await;
    let second = write_under(&repository, &other, None, "other", &disk, 1 << 30).await;
    // Equal chunks are not stored once; under one key they are.
    for written in [plain, first, second] {
        assert_eq!((written.chunks, written.new_chunks), (5, 5));
    }
    let again = write_under(&repository, &own, None, "own-2", &disk, 1 << 30).await;
    assert_eq!((again.new_chunks, again.new_bytes), (0, 0));
    for (name, key) in [("plain", &None), ("own-1", &own), ("other", &other)] {
        assert_eq!(read_under(&repository, key, name).await, disk);
        for wrong in [&None, &own, &other] {
            let fits = format!("{wrong:?}") == format!("{key:?}")
                && repository.read(name, wrong.clone()).await.is_ok();
            let is_own = match (wrong, key) {
                (Some(wrong), Some(key)) => wrong.fingerprint() == key.fingerprint(),
                (None, None) => true,
                _ => false,
            };
            assert_eq!(fits, is_own, "{name}");
            if !is_own {
                let refused = repository.write(Some(name), wrong.clone()).await;
                assert!(matches!(refused, Err(Error::OtherKey(_))), "{name}");
            }
        }
    }
    // Nothing of what was written lies there, but for the plain one's.
    repository.delete("plain").await.unwrap();
    repository.collect(|| true).await.unwrap();
    for object in repository.objects.list("chunks").await.unwrap() {
        let stored = repository.objects.get(&object.path).await.unwrap().unwrap();
        for of in disk.values() {
            let part = &chunk(*of)[..600];
            assert!(!stored.windows(part.len()).any(|window| window == part));
        }
        let name: Name = object.path.as_ref().parse().unwrap();
        assert!(disk.values().all(|of| Id::of_chunk(&chunk(*of)) != name.id));
    }
    // Who has no key sees that all is as it was stored, and removes what is not needed.
    assert_eq!(repository.scrub(None).await.unwrap().damages, []);
    repository.delete("other").await.unwrap();
    assert_eq!(
        repository.collect(|| true).await.unwrap().removed,
        5 + 3,
        "its chunks and nodes"
    );
    assert_eq!(read_under(&repository, &own, "own-2").await, disk);
    assert_eq!(format!("{:?}", own.unwrap()), "DataKey(..)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn chains_of_snapshots_read_as_a_plain_disk(
        changes in proptest::collection::vec(
            proptest::collection::btree_map(prop_oneof![0u64..40, 500u64..530, (MAX_CHUNKS - 5)..MAX_CHUNKS], 0u64..5, 0..12),
            1..6,
        ),
        is_encrypted: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let repository = in_memory();
            let key = key(1).filter(|_| is_encrypted);
            let mut plain = Disk::new();
            let mut base: Option<String> = None;
            for (number, change) in changes.iter().enumerate() {
                let name = format!("snap-{number}");
                write_under(&repository, &key, base.as_deref(), &name, change, tree::MAX_SIZE).await;
                plain.extend(change);
                plain.retain(|_, of| *of != 0);
                assert_eq!(read_under(&repository, &key, &name).await, plain);
                base = Some(name);
            }
            assert_eq!(repository.scrub(None).await.unwrap().damages, []);
        });
    }
}

#[tokio::test]
async fn a_base_that_went_before_it_was_pinned_is_none() {
    let store = Arc::new(Shaky::new(1));
    let repository = Repository::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
    write(
        &repository,
        None,
        "snap-1",
        &Disk::from([(0, 1), (600, 2)]),
        1 << 30,
    )
    .await;
    store.delete_before_pin("snap-1");
    assert!(matches!(
        repository.write(Some("snap-1"), None).await,
        Err(Error::NoSuchSnapshot(_))
    ));
    // What it has pinned is not there, which is no damage.
    write(&repository, None, "snap-2", &Disk::from([(0, 1)]), 1 << 30).await;
    repository.collect(|| true).await.unwrap();
    assert_eq!(read(&repository, "snap-2").await, Disk::from([(0, 1)]));
}

/// Writers, deletions and collections at the same time, interleaved at every request by chance and cut off at any. What is
/// there is always whole; at the end there is nothing but what is needed.
#[test]
fn snapshots_and_collections_do_not_harm_each_other() {
    let seeds = std::env::var("HEARTH_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(60) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(storm(seed));
    }
}

async fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let repository = Repository::new(Arc::new(Shaky::new(seed)));
    // What snapshots hold that are there, are being made, or failed.
    let mut disks: BTreeMap<String, Disk> = BTreeMap::new();
    let mut collector: Option<tokio::task::JoinHandle<()>> = None;
    let mut writers = Vec::new();
    for number in 0..60 {
        match rng.random_range(0..12) {
            0..5 => {
                let names: Vec<String> = disks.keys().cloned().collect();
                // One of the oldest, which go first.
                let base = (rng.random_range(0..3) > 0)
                    .then(|| names.get(rng.random_range(0..4)).cloned())
                    .flatten();
                let change: Disk = (0..rng.random_range(1..4))
                    .map(|_| (rng.random_range(0..3) * 500, rng.random_range(0..8)))
                    .collect();
                let mut disk = base.as_ref().map(|base| disks[base].clone()).unwrap_or_default();
                disk.extend(&change);
                disk.retain(|_, of| *of != 0);
                let name = format!("snap-{number:02}");
                disks.insert(name.clone(), disk);
                let repository = repository.clone();
                let work = tokio::spawn(async move {
                    // Its base may not be there yet, or not any more.
                    let mut writer = repository.write(base.as_deref(), None).await?;
                    for (index, of) in change {
                        match of {
                            0 => writer.zero(index).await?,
                            of => writer.put(index, chunk(of)).await?,
                        }
                    }
                    writer.finish(&name, 1 << 30).await
                });
                writers.push(work);
            }
            5..9 => {
                let mut names = repository.snapshots().await.unwrap();
                names.sort();
                if let Some(name) = names.first() {
                    repository.delete(name).await.unwrap();
                    disks.remove(name);
                }
            }
            9..11 => {
                if let Some(collector) = collector.take() {
                    if rng.random() {
                        collector.abort();
                    }
                    let _ = collector.await;
                }
                let repository = repository.clone();
                collector = Some(tokio::spawn(async move {
                    repository.collect(|| true).await.unwrap();
                }));
            }
            _ => {
                if !writers.is_empty() {
                    writers.swap_remove(rng.random_range(0..writers.len())).abort();
                }
            }
        }
        for _ in 0..rng.random_range(0..120) {
            tokio::task::yield_now().await;
        }
    }
    for writer in writers {
        match writer.await.unwrap() {
            Ok(_) | Err(Error::NoSuchSnapshot(_)) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    if let Some(collector) = collector {
        collector.await.unwrap();
    }
    let names = repository.snapshots().await.unwrap();
    for name in &names {
        assert_eq!(read(&repository, name).await, disks[name], "seed {seed}, {name}");
    }
    repository.collect_silent(Duration::ZERO, || true).await.unwrap();
    let collected = repository.collect_silent(Duration::ZERO, || true).await.unwrap();
    assert_eq!(collected.removed, 0, "seed {seed}");
    let left = objects(&repository).await;
    assert_eq!(
        left.len() as u64,
        collected.kept + names.len() as u64,
        "seed {seed}: {left:?}"
    );
    for name in &names {
        assert_eq!(read(&repository, name).await, disks[name], "seed {seed}, {name}");
    }
}

#[tokio::test]
async fn what_was_deleted_during_a_scrub_is_no_damage_and_all_that_need_a_damaged_chunk_are_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = Repository::in_directory(dir.path()).unwrap();
    let copy = Repository::in_directory(other.path()).unwrap();
    let shared = Disk::from([(0, 1), (1, 2)]);
    write(&copy, None, "snap-1", &shared, 1 << 30).await;
    for (name, own) in [("snap-1", 3), ("snap-2", 4)] {
        write(&repository, None, name, &shared, 1 << 30).await;
        write(
            &repository,
            Some(name),
            &format!("{name}-own"),
            &Disk::from([(9, own)]),
            1 << 30,
        )
        .await;
    }
    let damaged = name::Name::chunk(Id::of_chunk(&chunk(1)));
    std::fs::write(dir.path().join(damaged.path().as_ref()), b"?").unwrap();
    let of = repository.objects().await.unwrap();
    let last = std::sync::atomic::AtomicU64::new(0);
    let tell = |objects| {
        last.store(objects, std::sync::atomic::Ordering::Relaxed);
        // While the first one is read, another goes.
        let _ = std::fs::remove_file(dir.path().join("snapshots/snap-2-own"));
        let own = name::Name::chunk(Id::of_chunk(&chunk(4)));
        let _ = std::fs::remove_file(dir.path().join(own.path().as_ref()));
    };
    let scrubbed = repository.scrub_telling(Some(&copy), tell).await.unwrap();
    let [damage] = scrubbed.damages.as_slice() else {
        panic!("{scrubbed:?}")
    };
    let named: Vec<&str> = damage.snapshots.iter().map(String::as_str).collect();
    assert_eq!(
        (damage.repaired, named),
        (true, vec!["snap-1", "snap-1-own", "snap-2"])
    );
    assert!(scrubbed.objects <= of, "{} of {of}", scrubbed.objects);
    assert_eq!(last.into_inner(), scrubbed.objects);
}

/// What a survey says of each snapshot is what its deletion and a collection do.
#[tokio::test]
async fn a_survey_tells_what_deletions_free() {
    let repository = in_memory();
    let mut random = StdRng::seed_from_u64(15);
    let mut disks: BTreeMap<String, Disk> = BTreeMap::new();
    for number in 0..24 {
        let name = format!("snap-{number}");
        let base = (number % 3 != 0).then(|| format!("snap-{}", random.random_range(0..number)));
        let mut disk = base.as_ref().map(|base| disks[base].clone()).unwrap_or_default();
        for _ in 0..random.random_range(0..6) {
            // Some chunks that others have, and some twice in a disk; far from one another and near.
            let index =
                [random.random_range(0..20), random.random_range(0..40) * 511][random.random_range(0..2)];
            disk.insert(index, random.random_range(1..60));
        }
        write(&repository, None, &name, &disk, 16 << 30).await;
        disks.insert(name, disk);
    }
    // Not needed by anybody.
    write(&repository, None, "snap-gone", &Disk::from([(3, 999)]), 16 << 30).await;
    repository.delete("snap-gone").await.unwrap();
    let mut survey = repository.survey().await.unwrap();
    assert_ne!(survey.totals.unneeded, 0);
    for (name, disk) in &disks {
        let share = &survey.snapshots[name];
        assert_eq!((share.size, share.chunks), (16 << 30, disk.len() as u64));
        assert!(share.shared <= share.stored && share.damage.is_none());
        let others = disks.iter().filter(|(other, _)| *other != name);
        let others: BTreeSet<u64> = others.flat_map(|(_, disk)| disk.values().copied()).collect();
        let is_shared = disk.values().any(|of| others.contains(of));
        assert_eq!(share.shared > 0, is_shared, "{name}");
    }
    let references: u64 = disks.values().map(|disk| disk.len() as u64).sum();
    let distinct: BTreeSet<u64> = disks.values().flat_map(|disk| disk.values().copied()).collect();
    assert_eq!(
        (survey.totals.references, survey.totals.chunks),
        (references, distinct.len() as u64)
    );
    let collected = repository.collect(|| true).await.unwrap();
    assert_eq!(collected.removed_bytes, survey.totals.unneeded);
    for name in disks.keys() {
        let own = survey.snapshots[name].own;
        repository.delete(name).await.unwrap();
        let collected = repository.collect(|| true).await.unwrap();
        assert_eq!(collected.removed_bytes, own, "{name}");
        let before = survey.totals.stored;
        survey = repository.survey().await.unwrap();
        assert_eq!(survey.totals.stored, before - own);
    }
    assert_eq!(survey, Survey::default());
}
