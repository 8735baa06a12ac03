//! The store as it was left by an earlier version.

use std::borrow::Cow;

use sqlx::migrate::Migrator;

use super::host_keys::Admission;
use super::*;

const HOST: &str = "h-0123456789abcdef0";

/// A database of the first version, with a host and a join token.
async fn first_version(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let all = sqlx::migrate!("./migrations");
    let first = all.migrations.iter().take(1).cloned().collect();
    let migrator = Migrator {
        migrations: Cow::Owned(first),
        ..Migrator::DEFAULT
    };
    migrator.run(&pool).await.unwrap();
    for statement in [
        "INSERT INTO hosts (id, availability_zone, enrolled_at) VALUES ('h-0123456789abcdef0', 'local-1a', 0)",
        "INSERT INTO join_tokens (secret_hash, created_at) VALUES ('00', 0)",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

#[tokio::test]
async fn hosts_of_the_first_version_stay_and_its_join_tokens_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    first_version(&path).await;
    let store = Store::open(&path).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let c = tx.connection();
    assert!(join_tokens::usable(c).await.unwrap().is_empty());
    // Whatever key its ten-year certificate has: it becomes the host's, and then no other is.
    let admission = host_keys::admission(c, HOST, "old").await.unwrap();
    assert_eq!(admission, Admission::Admitted);
    host_keys::used(c, HOST, "old").await.unwrap();
    assert_eq!(
        host_keys::admission(c, HOST, "other").await.unwrap(),
        Admission::Replaced
    );
    // Renewed: both are good until the new one is used.
    host_keys::record(c, HOST, "new", None).await.unwrap();
    host_keys::used(c, HOST, "old").await.unwrap();
    assert_eq!(
        host_keys::admission(c, HOST, "new").await.unwrap(),
        Admission::Admitted
    );
    host_keys::used(c, HOST, "new").await.unwrap();
    assert_eq!(
        host_keys::admission(c, HOST, "old").await.unwrap(),
        Admission::Replaced
    );
    assert_eq!(
        host_keys::admission(c, "h-0", "old").await.unwrap(),
        Admission::Unknown
    );
    hosts::forget(c, HOST).await.unwrap();
    assert_eq!(
        host_keys::admission(c, HOST, "new").await.unwrap(),
        Admission::Forgotten
    );
}

/// The latest migration that a database has had.
async fn version(path: &Path) -> i64 {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let version = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
    version.fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_backup_leaves_an_older_hearthds_database_as_it_is_and_a_restore_brings_it_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let [data, to, restored] = ["data", "backup", "restored"].map(|name| dir.path().join(name));
    std::fs::create_dir_all(data.join("pki")).unwrap();
    std::fs::create_dir_all(data.join("images")).unwrap();
    first_version(&data.join(DATABASE)).await;
    // The older hearthd, which runs.
    let options = SqliteConnectOptions::new()
        .filename(data.join(DATABASE))
        .journal_mode(SqliteJournalMode::Wal);
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
