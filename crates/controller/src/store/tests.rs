//! The store on each backend; as an earlier version left it, and when its database refuses.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hearth_api::InstanceState;
use postgres::Postgres;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

use super::backend::{Batch, Newer};
use super::bootstrap::{BootstrapError, Layout, bootstrap};
use super::lease::Lease;
use super::*;
use crate::seal::SealingKey;
use crate::state::tests::a_host;
use crate::state::{
    AccountSettings, Admission, ClientToken, Cloud, Host, HostReport, Incarnation, Instance, JoinToken,
    NetworkInterface, Region, Scope, SecurityGroupRule, Subnet, Volume, key,
};

#[path = "../../tests/cloud/postgres.rs"]
mod postgres;
mod sharing;

const HOST: &str = "h-0123456789abcdef0";

/// A host and a join token.
const FIRST_VERSION: &str = "INSERT INTO hosts (id, availability_zone, enrolled_at)
         VALUES ('h-0123456789abcdef0', 'local-1a', 0);
     INSERT INTO join_tokens (secret_hash, created_at) VALUES ('00', 0);";

async fn pool(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqlitePool::connect_with(options).await.unwrap()
}

/// A database of the first so many versions, and what was in it.
async fn earlier(path: &Path, versions: usize, fixture: &'static str) {
    let pool = pool(path).await;
    let all = sqlx::migrate!("./migrations");
    let migrator = Migrator {
        migrations: Cow::Owned(all.migrations.iter().take(versions).cloned().collect()),
        ..Migrator::DEFAULT
    };
    migrator.run(&pool).await.unwrap();
    sqlx::raw_sql(fixture).execute(&pool).await.unwrap();
    pool.close().await;
}

async fn transact<T: Send + 'static>(
    store: &Store,
    transaction: impl FnOnce(&mut Tx<'_>) -> T + Send + 'static,
) -> Result<T, CommitError> {
    store.transact(move |tx| Ok(transaction(tx))).await
}

/// A database of a test's own, on one of the backends.
enum Place {
    Sqlite(TempDir),
    Postgres(Postgres),
}

impl Place {
    /// One of each that there is.
    fn each(test: &str) -> Vec<Self> {
        let sqlite = Self::Sqlite(tempfile::tempdir().unwrap());
        let postgres = Postgres::start(test).map(Self::Postgres);
        std::iter::once(sqlite).chain(postgres).collect()
    }

    fn database(&self) -> DatabaseUrl {
        match self {
            Self::Sqlite(_) => DatabaseUrl::SQLITE.parse().unwrap(),
            Self::Postgres(server) => server.url().parse().unwrap(),
        }
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Sqlite(dir) => Arc::new(Sqlite::open(&dir.path().join(DATABASE)).await.unwrap()),
            Self::Postgres(_) => Arc::new(super::Postgres::open(&self.database(), "other").await.unwrap()),
        }
    }

    /// A store that is the leader.
    async fn open(&self) -> Store {
        let store = self.follower("127.0.0.1:1").await;
        led(&store).await;
        store
    }

    async fn follower(&self, endpoint: &str) -> Store {
        let dir = match self {
            Self::Sqlite(dir) => dir.path(),
            Self::Postgres(_) => Path::new("/nowhere"),
        };
        Store::open_in(dir, &self.database(), endpoint).await.unwrap()
    }

    async fn sql(&self, statement: &'static str) {
        match self {
            Self::Sqlite(dir) => {
                let pool = pool(&dir.path().join(DATABASE)).await;
                sqlx::raw_sql(statement).execute(&pool).await.unwrap();
            }
            Self::Postgres(server) => assert!(server.sql(statement).is_some(), "{statement}"),
        }
    }
}

/// Waits until the store is the leader. Answers how long it took.
async fn led(store: &Store) -> Duration {
    let began = Instant::now();
    let mut standing = store.standing();
    let leads = standing.wait_for(Standing::is_leader);
    let _ = tokio::time::timeout(SOON, leads).await.unwrap().unwrap();
    began.elapsed()
}

/// For whatever must happen, on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn hosts_of_the_first_version_stay_and_its_join_tokens_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    earlier(&path, 1, FIRST_VERSION).await;
    let store = Store::open(&path).await.unwrap();
    assert!(store.state().usable_tokens(now()).is_empty());
    // Whatever key its ten-year certificate has: it becomes the host's, and then no other is.
    let admission = |key: &str| store.state().admission(HOST, key);
    assert_eq!(admission("old"), Admission::Admitted);
    transact(&store, |tx| tx.use_key(HOST, "old")).await.unwrap();
    assert_eq!(admission("other"), Admission::Replaced);
    // Renewed: both are good until the new one is used.
    transact(&store, |tx| {
        tx.record_key(HOST, "new", None);
        tx.use_key(HOST, "old");
    })
    .await
    .unwrap();
    assert_eq!(admission("new"), Admission::Admitted);
    transact(&store, |tx| tx.use_key(HOST, "new")).await.unwrap();
    assert_eq!(admission("old"), Admission::Replaced);
    assert_eq!(store.state().admission("h-0", "old"), Admission::Unknown);
    transact(&store, |tx| {
        tx.update::<Host>(HOST, |host| host.forgotten_at = Some(1))
    })
    .await
    .unwrap();
    assert_eq!(admission("new"), Admission::Forgotten);
}

#[tokio::test]
async fn a_database_of_tables_becomes_one_of_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    earlier(&path, 7, include_str!("tests/version_7.sql")).await;
    let store = Store::open(&path).await.unwrap();
    let state = store.state();
    state.check();
    let owner = state.get::<Cloud>(Cloud::ID).unwrap().owner_id.clone();
    assert_eq!(owner, "123456789012");
    // Sequences go on from the highest generation of a host.
    assert!(state.sequence() >= 42);
    let running = state.get::<Instance>("i-1").unwrap();
    assert_eq!(running.state, InstanceState::Running);
    assert_eq!((running.vcpus, running.memory_mib), (2, 4096));
    assert_eq!(running.tags["Name"], "one \"quoted\"");
    assert!(running.public_address && !running.force);
    let user_data = running.user_data.clone().unwrap();
    assert_eq!(store.blob(&user_data).await.unwrap(), b"\x00\xff#!/bin/sh");
    let gone = state.get::<Instance>("i-2").unwrap();
    assert_eq!(gone.state, InstanceState::Terminated);
    assert_eq!((gone.terminated_at, &gone.user_data), (Some(9), &None));
    // Its type had left the catalogue.
    assert_eq!((gone.vcpus, gone.memory_mib), (1, 128));
    let interface = state.interface_of("i-1").unwrap();
    assert_eq!(interface.groups, ["sg-1", "sg-2"]);
    assert_eq!(interface.public_ip, Some([198, 18, 0, 2].into()));
    assert_eq!(state.sum(&Incarnation::ON_HOST, "h-1"), [2, 4096]);
    assert_eq!(state.sum(&Volume::ON_HOST, "h-1"), [2, 18]);
    assert!(state.get::<Volume>("vol-2").unwrap().attachment.is_none());
    let root = state.get::<Volume>("vol-1").unwrap().attachment.clone().unwrap();
    assert_eq!((root.instance_id.as_str(), root.epoch), ("i-1", 1));
    let primary = interface.attachment.clone().unwrap();
    assert!(primary.delete_on_termination && primary.device == "0");
    assert!(state.get::<HostReport>("h-1").unwrap().uefi);
    assert_eq!(state.get::<Subnet>("subnet-1").unwrap().tags["a/b"], "");
    assert_eq!(state.rules_of("sg-1").len(), 2);
    let named = state.by(&SecurityGroupRule::BY_REFERENCED, "sg-2").count();
    assert_eq!(named, 1);
    let token = key(&[&owner, "RunInstances", "", "token/1"]);
    assert_eq!(state.get::<ClientToken>(&token).unwrap().resource_id, "r-1");
    assert!(state.any_by(&NetworkInterface::BY_MAC, "02:00:00:00:00:01"));
    let nowhere = Scope::new(&owner, "");
    assert_eq!(state.default_vpc(&nowhere).unwrap().id, "vpc-1");
    store.close().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%'
         ORDER BY name",
    )
    .fetch_all(&pool(&path).await)
    .await
    .unwrap();
    assert_eq!(tables, ["audit", "blobs", "events", "objects", "position"]);
}

#[tokio::test]
async fn a_cloud_of_before_regions_keeps_its_things_in_its_home_region() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    earlier(&path, 7, include_str!("tests/version_7.sql")).await;
    let layout = |region: &str, zones: &[&str]| Layout {
        region: region.to_owned(),
        zones: zones.iter().map(ToString::to_string).collect(),
        vpc_cidr: "172.31.0.0/16".parse().unwrap(),
    };
    let store = Store::open(&path).await.unwrap();
    let settings = AccountSettings {
        id: "123456789012".into(),
        account_id: "123456789012".into(),
        serial_console_access: true,
        ..Default::default()
    };
    transact(&store, |tx| tx.put(settings)).await.unwrap();
    let root = Arc::new(SealingKey::read(&SealingKey::generate()).unwrap());
    let begin = async |layout: Layout| {
        let root = Arc::clone(&root);
        let begun = store.transact(move |tx| bootstrap(tx, &layout, &root).map_err(anyhow::Error::from));
        (begun.await, store.state())
    };
    // A second start changes nothing; a region may get another name.
    for region in ["lab-1", "lab-1", "lab-2"] {
        let (owner, state) = begin(layout(region, &["lab-1a"])).await;
        let (owner, home) = (owner.unwrap(), state.region(region).unwrap());
        state.check();
        assert_eq!(state.count::<Region>(), 1);
        assert_eq!(home.zones, ["lab-1a"]);
        let of = Scope::new(&owner, region);
        let seen = state.seen_by(of.clone());
        assert_eq!(seen.default_vpc(&of).unwrap().id, "vpc-1");
        assert!(seen.account_settings(&of).serial_console_access);
        let (rows, all) = (seen.all::<Instance>().count(), state.count::<Instance>());
        assert_eq!(rows, all);
        assert!(seen.all::<Instance>().all(|row| row.region == region));
        assert_eq!(seen.by(&Subnet::BY_VPC, "vpc-1").count(), state.count::<Subnet>());
        let token = ClientToken::id_of(&of, "RunInstances", "", "token/1");
        assert_eq!(seen.get::<ClientToken>(&token).unwrap().resource_id, "r-1");
        let elsewhere = state.seen_by(Scope::new(&owner, "lab-3"));
        assert_eq!(elsewhere.all::<Volume>().count(), 0);
    }
    // A region beside it keeps its name and its zones.
    let further = Region {
        name: "lab-3".into(),
        zones: vec!["lab-3a".into()],
        created_at: 0,
    };
    transact(&store, |tx| tx.put(further)).await.unwrap();
    let (taken, _) = begin(layout("lab-3", &["lab-1a"])).await;
    let refused = |taken: anyhow::Result<String>| taken.unwrap_err().downcast::<BootstrapError>().unwrap();
    let error = refused(taken);
    assert!(matches!(error, BootstrapError::Region { .. }), "{error:?}");
    let (taken, state) = begin(layout("lab-2", &["lab-1a", "lab-3a"])).await;
    let error = refused(taken);
    assert!(matches!(error, BootstrapError::Zone { .. }), "{error:?}");
    assert_eq!(state.region("lab-2").unwrap().zones, ["lab-1a"]);
    store.close().await;
    let again = Store::open(&path).await.unwrap();
    let state = again.state();
    state.check();
    assert_eq!(state.count::<Region>(), 2);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_next_start() {
    for place in Place::each("what_was_acknowledged_is_there_after_the_next_start") {
        acknowledged_and_there(&place).await;
    }
}

async fn acknowledged_and_there(place: &Place) {
    let store = Arc::new(place.open().await);
    let put = |n: usize| {
        let store = Arc::clone(&store);
        async move {
            transact(&store, move |tx| {
                tx.put(a_host(&format!("h-{n}")));
                if n.is_multiple_of(3) {
                    tx.keep_blob(vec![u8::try_from(n % 251).unwrap(); 100]);
                }
            })
            .await
        }
    };
    let done = futures::future::join_all((0..500).map(put)).await;
    assert!(done.iter().all(Result::is_ok));
    transact(&store, |tx| tx.remove::<Host>("h-7")).await.unwrap();
    let sequence = store.state().sequence();
    // Without closing it: as after SIGKILL.
    drop(store);
    let again = place.open().await;
    let state = again.state();
    assert_eq!((state.count::<Host>(), state.sequence()), (499, sequence));
    assert!(state.get::<Host>("h-7").is_none());
    let digest = blake3::hash(&[3; 100]).to_hex().to_string();
    assert_eq!(again.blob(&digest).await.unwrap(), [3; 100]);
}

#[tokio::test]
async fn a_database_that_refuses_takes_the_state_back() {
    for place in Place::each("a_database_that_refuses_takes_the_state_back") {
        refused_and_taken_back(&place).await;
    }
}

async fn refused_and_taken_back(place: &Place) {
    let store = place.open().await;
    transact(&store, |tx| tx.put(a_host("h-0"))).await.unwrap();
    place.sql("ALTER TABLE position RENAME TO elsewhere").await;
    let before = store.state();
    let refused = transact(&store, |tx| tx.put(a_host("h-1"))).await.unwrap_err();
    assert!(matches!(refused, CommitError::Refused(_)), "{refused:?}");
    assert!(Arc::ptr_eq(&before, &store.state()));
    place.sql("ALTER TABLE elsewhere RENAME TO position").await;
    transact(&store, |tx| {
        assert!(tx.get::<Host>("h-1").is_none());
        tx.put(a_host("h-2"));
    })
    .await
    .unwrap();
    drop(store);
    let again = place.open().await;
    let ids: Vec<String> = again.state().hosts().map(|host| host.id.clone()).collect();
    assert_eq!(ids, ["h-0", "h-2"]);
}

/// A database whose answers get lost.
#[derive(Debug)]
struct Lossy {
    database: Arc<dyn Backend>,
    /// What becomes of the next commits.
    losses: Mutex<VecDeque<Loss>>,
    /// Whether the database can be asked after a commit.
    mute: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Commit,
    Answer,
}

#[tonic::async_trait]
impl Backend for Lossy {
    async fn load(&self) -> Result<State, ReadError> {
        self.database.load().await
    }

    async fn commit(&self, batch: Batch<'_>) -> Result<(), Refusal> {
        let loss = self.losses.lock().unwrap().pop_front();
        if loss != Some(Loss::Commit) {
            self.database.commit(batch).await?;
        }
        match loss {
            None => Ok(()),
            Some(_) => Err(sqlx::Error::WorkerCrashed.into()),
        }
    }

    async fn has(&self, batch: Batch<'_>) -> Result<bool, sqlx::Error> {
        match self.mute.load(Ordering::Relaxed) {
            true => Err(sqlx::Error::WorkerCrashed),
            false => self.database.has(batch).await,
        }
    }

    async fn newer_than(&self, state: &State) -> Result<Option<Newer>, ReadError> {
        self.database.newer_than(state).await
    }

    async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error> {
        self.database.blob(digest).await
    }

    async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error> {
        self.database.forget_history(events, audit).await
    }

    fn lease(&self) -> Option<&dyn Lease> {
        self.database.lease()
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

/// Adds one to the use count of the token.
fn count(tx: &mut Tx<'_>) {
    let uses = tx.get::<JoinToken>("t").map_or(0, |token| token.uses);
    tx.put(JoinToken {
        id: "t".into(),
        secret_hash: "00".into(),
        host_id: None,
        uses: uses + 1,
        uses_left: 0,
        created_at: 0,
        expires_at: 0,
    });
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_happens_once() {
    for place in Place::each("a_commit_whose_answer_is_lost_happens_once") {
        lost_and_once(&place).await;
    }
}

async fn lost_and_once(place: &Place) {
    let lossy = Arc::new(Lossy {
        database: place.backend().await,
        losses: Mutex::default(),
        mute: AtomicBool::new(false),
    });
    let database = Arc::clone(&lossy) as Arc<dyn Backend>;
    let store = Store::on(database, "other".into(), "127.0.0.1:2".into())
        .await
        .unwrap();
    led(&store).await;
    let lose = |losses: &[Loss]| *lossy.losses.lock().unwrap() = losses.iter().copied().collect();
    let uses = |store: &Store| store.state().get::<JoinToken>("t").map_or(0, |token| token.uses);
    for losses in [
        &[Loss::Answer][..],
        &[Loss::Commit],
        &[Loss::Commit, Loss::Answer],
    ] {
        lose(losses);
        let before = uses(&store);
        transact(&store, count).await.unwrap();
        assert_eq!(uses(&store), before + 1, "{losses:?}");
    }
    lose(&[Loss::Commit, Loss::Commit]);
    transact(&store, count).await.unwrap_err();
    assert_eq!(uses(&store), 3);
    // Nobody can say what became of it; it has been made, and the next transaction sees it.
    lossy.mute.store(true, Ordering::Relaxed);
    lose(&[Loss::Answer]);
    transact(&store, count).await.unwrap_err();
    assert_eq!(uses(&store), 3);
    transact(&store, count).await.unwrap();
    assert_eq!(uses(&store), 5);
    assert_eq!(uses(&place.follower("127.0.0.1:3").await), 5);
}

#[tokio::test]
async fn transactions_that_fail_change_nothing_and_stop_nobody() {
    for place in Place::each("transactions_that_fail_change_nothing_and_stop_nobody") {
        failed_and_nothing_changed(&place).await;
    }
}

async fn failed_and_nothing_changed(place: &Place) {
    let store = place.open().await;
    let panicked = transact(&store, |tx| {
        tx.put(a_host("h-0"));
        assert_eq!(tx.count::<Host>(), 2, "a fault of the program");
    })
    .await;
    assert!(matches!(panicked, Err(CommitError::Panicked)), "{panicked:?}");
    let dangling = transact(&store, |tx| {
        tx.put(Incarnation::new(
            &crate::state::tests::an_instance("i-0", "h-0", "r-0"),
            "h-0",
            1,
        ));
    })
    .await;
    assert!(matches!(dangling, Err(CommitError::Violation(_))), "{dangling:?}");
    let refused: Result<(), ApiError> = store
        .transact(|tx| {
            tx.put(a_host("h-1"));
            Err(ApiError::dry_run())
        })
        .await;
    assert_eq!(refused, Err(ApiError::dry_run()));
    transact(&store, |tx| tx.put(a_host("h-2"))).await.unwrap();
    let ids: Vec<String> = store.state().hosts().map(|host| host.id.clone()).collect();
    assert_eq!(ids, ["h-2"]);
}

/// The latest migration that a database has had.
async fn version(path: &Path) -> i64 {
    let version = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
    version.fetch_one(&pool(path).await).await.unwrap()
}

#[tokio::test]
async fn a_backup_leaves_an_older_hearthds_database_as_it_is_and_a_restore_brings_it_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let [data, to, restored] = ["data", "backup", "restored"].map(|name| dir.path().join(name));
    std::fs::create_dir_all(data.join("pki")).unwrap();
    std::fs::create_dir_all(data.join("images")).unwrap();
    earlier(&data.join(DATABASE), 1, FIRST_VERSION).await;
    // The older hearthd, which runs.
    let options = SqliteConnectOptions::new()
        .filename(data.join(DATABASE))
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let older = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("INSERT INTO join_tokens (secret_hash, created_at) VALUES ('01', 0)")
        .execute(&older)
        .await
        .unwrap();

    assert_eq!(crate::backup::backup(&data, &to).await.unwrap(), 0);
    assert_eq!(version(&data.join(DATABASE)).await, 1);
    assert_eq!(version(&to.join(DATABASE)).await, 1);
    let statement = "INSERT INTO join_tokens (secret_hash, created_at) VALUES ('02', 0)";
    sqlx::query(statement).execute(&older).await.unwrap();
    older.close().await;

    crate::backup::restore(&to, &restored).await.unwrap();
    assert!(version(&restored.join(DATABASE)).await > 1);
}
