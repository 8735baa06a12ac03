//! PostgreSQL: the same objects as rows of a server that several `hearthd` share. One of them, the holder of the lease,
//! writes; the others follow.
//!
//! A commit is one statement. It has an effect only while the database is at the position and the epoch that the writer
//! knows: a writer that has lost its lease writes nothing, whenever its statement arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};

use super::backend::{Backend, Batch, Newer, ReadError, Refusal};
use super::lease::Lease;
use super::{DatabaseUrl, OpenError};
use crate::state::{Row, State};
use slot::{Slot, twice, within};

mod lease;
mod slot;

/// How long one statement may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long reading the whole state may take.
const LOAD_DEADLINE: Duration = Duration::from_secs(300);

/// Rows of history that one statement removes, so that commits do not wait long.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

#[derive(Debug)]
pub(super) struct Postgres {
    writer: Slot,
    reader: Slot,
    keeper: Slot,
}

/// One statement: the row of `fence` is there only if nothing else has been committed and the lease is still held.
const COMMIT: &str = "
WITH fence AS (
    UPDATE position SET sequence = $2 WHERE sequence = $1 AND epoch = $3 RETURNING one
), put AS (
    INSERT INTO objects (kind, id, account, version, body)
    SELECT u.kind, u.id, u.account, u.version, u.body::json
    FROM fence, unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[]) AS u (kind, id, account, version, body)
    ON CONFLICT (kind, id)
    DO UPDATE SET account = excluded.account, version = excluded.version, body = excluded.body
), gone AS (
    DELETE FROM objects AS o
    USING fence, unnest($9::text[], $10::text[]) AS u (kind, id)
    WHERE o.kind = u.kind AND o.id = u.id
), tombs AS (
    INSERT INTO removed (kind, id, version, at)
    SELECT u.kind, u.id, $2, $11 FROM fence, unnest($9::text[], $10::text[]) AS u (kind, id)
    ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, at = excluded.at
), told AS (
    INSERT INTO events (sequence, at, kind, resource_id)
    SELECT u.sequence, u.at, u.kind, u.resource_id
    FROM fence, unnest($12::bigint[], $13::bigint[], $14::text[], $15::text[]) AS u (sequence, at, kind, resource_id)
), audited AS (
    INSERT INTO audit (sequence, at, action, detail)
    SELECT u.sequence, u.at, u.action, u.detail
    FROM fence, unnest($16::bigint[], $17::bigint[], $18::text[], $19::text[]) AS u (sequence, at, action, detail)
), kept AS (
    INSERT INTO blobs (digest, body)
    SELECT u.digest, u.body FROM fence, unnest($20::text[], $21::bytea[]) AS u (digest, body)
    ON CONFLICT (digest) DO NOTHING
), dropped AS (
    DELETE FROM blobs AS b USING fence, unnest($22::text[]) AS u (digest) WHERE b.digest = u.digest
)
SELECT count(*) FROM fence";

impl Postgres {
    /// Connects, and brings the database to this version's schema. `process` names this process among those that use the
    /// database.
    pub(super) async fn open(url: &DatabaseUrl, process: &str) -> Result<Self, OpenError> {
        let connect = |source| OpenError::Connect {
            place: url.to_string(),
            source,
        };
        let options = options(url, process).map_err(connect)?;
        let database = Self {
            writer: Slot::new(options.clone()),
            reader: Slot::new(options.clone()),
            keeper: Slot::new(options.clone()),
        };
        let mut connection = tokio::time::timeout(DEADLINE, PgConnection::connect_with(&options))
            .await
            .unwrap_or_else(|_| Err(slot::late()))
            .map_err(connect)?;
        sqlx::migrate!("./postgres")
            .run(&mut connection)
            .await
            .map_err(|source| OpenError::Migrate {
                place: url.to_string(),
                source,
            })?;
        connection.close().await.map_err(connect)?;
        Ok(database)
    }

    async fn position(&self) -> Result<(u64, u64), sqlx::Error> {
        let read = || async {
            let mut c = self.reader.lend().await?;
            let position = sqlx::query_as("SELECT sequence, epoch FROM position")
                .fetch_one(&mut *c)
                .await?;
            c.keep();
            Ok::<(i64, i64), sqlx::Error>(position)
        };
        let (sequence, epoch) = twice(DEADLINE, read).await?;
        Ok((sequence.cast_unsigned(), epoch.cast_unsigned()))
    }
}

fn options(url: &DatabaseUrl, process: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.secret().parse()?;
    Ok(options.application_name(&lease::application(process)).options([
        // What is acknowledged survives a power cut, whatever the server's default.
        ("synchronous_commit", "on"),
        ("statement_timeout", "300s"),
        ("lock_timeout", "8s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ]))
}

#[tonic::async_trait]
impl Backend for Postgres {
    async fn load(&self) -> Result<State, ReadError> {
        let read = || async {
            let mut c = self.reader.lend().await?;
            let state = load(&mut c).await?;
            c.keep();
            Ok(state)
        };
        twice(LOAD_DEADLINE, read).await
    }

    async fn commit(&self, batch: Batch<'_>) -> Result<(), Refusal> {
        let rows = Rows::of(&batch);
        let write = async {
            let mut c = self.writer.lend().await?;
            let done = rows.commit(&mut c).await?;
            c.keep();
            Ok::<bool, sqlx::Error>(done)
        };
        if within(DEADLINE, write).await? {
            return Ok(());
        }
        match self.position().await? {
            (_, epoch) if epoch == batch.epoch => Err(Refusal::Moved),
            _ => Err(Refusal::Fenced),
        }
    }

    async fn has(&self, batch: Batch<'_>) -> Result<bool, sqlx::Error> {
        Ok(self.position().await? == (batch.after, batch.epoch))
    }

    async fn newer_than(&self, state: &State) -> Result<Option<Newer>, ReadError> {
        let (position, _) = self.position().await?;
        if position == state.sequence() {
            return Ok(None);
        }
        let read = || async {
            let mut c = self.reader.lend().await?;
            let newer = newer_than(&mut c, state).await?;
            c.keep();
            Ok::<_, ReadError>(newer)
        };
        match twice(LOAD_DEADLINE, read).await? {
            Some(newer) => Ok(Some(newer)),
            None => Ok(Some(Newer::anew(self.load().await?))),
        }
    }

    async fn blob(&self, digest: &str) -> Result<Vec<u8>, sqlx::Error> {
        let read = || async {
            let mut c = self.reader.lend().await?;
            let body = sqlx::query_scalar("SELECT body FROM blobs WHERE digest = $1")
                .bind(digest)
                .fetch_one(&mut *c)
                .await?;
            c.keep();
            Ok(body)
        };
        twice(DEADLINE, read).await
    }

    async fn forget_history(&self, events: i64, audit: i64) -> Result<u64, sqlx::Error> {
        const EVENTS: &str = "DELETE FROM events
            WHERE id IN (SELECT id FROM events WHERE at < $1 ORDER BY id LIMIT $2)";
        const AUDIT: &str = "DELETE FROM audit
            WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY id LIMIT $2)";
        // The horizon grows before anybody can miss what is gone.
        const REMOVED: &str = "
            WITH old AS (SELECT kind, id, version FROM removed WHERE at < $1 ORDER BY version LIMIT $2),
            horizon AS (
                UPDATE position SET horizon = greatest(horizon, (SELECT coalesce(max(version), 0) FROM old))
                WHERE EXISTS (SELECT FROM old)
            )
            DELETE FROM removed AS r USING old WHERE r.kind = old.kind AND r.id = old.id AND r.version = old.version";
        let mut forgotten = 0;
        for (statement, before) in [(EVENTS, events), (AUDIT, audit), (REMOVED, events)] {
            loop {
                let remove = || async {
                    let mut c = self.reader.lend().await?;
                    let query = sqlx::query(statement).bind(before).bind(FORGOTTEN_AT_ONCE);
                    let removed = query.execute(&mut *c).await?.rows_affected();
                    c.keep();
                    Ok::<u64, sqlx::Error>(removed)
                };
                let removed = twice(DEADLINE, remove).await?;
                forgotten += removed;
                if removed < FORGOTTEN_AT_ONCE.cast_unsigned() {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    fn lease(&self) -> Option<&dyn Lease> {
        Some(self)
    }

    async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
        self.keeper.close().await;
    }
}

/// Kind, id, account, version and body of objects.
type Objects<'b> = (Vec<&'b str>, Vec<&'b str>, Vec<&'b str>, Vec<i64>, Vec<&'b str>);
/// Sequence and time of transactions, and two texts.
type History<'b> = (Vec<i64>, Vec<i64>, Vec<&'b str>, Vec<&'b str>);

/// A batch as the parameters of [`COMMIT`].
#[derive(Debug, Default)]
struct Rows<'b> {
    before: i64,
    after: i64,
    epoch: i64,
    at: i64,
    put: Objects<'b>,
    gone: (Vec<&'b str>, Vec<&'b str>),
    events: History<'b>,
    audit: History<'b>,
    kept: (Vec<&'b str>, Vec<&'b [u8]>),
    dropped: Vec<&'b str>,
}

impl<'b> Rows<'b> {
    fn of(batch: &Batch<'b>) -> Self {
        let mut rows = Self {
            before: batch.before.cast_signed(),
            after: batch.after.cast_signed(),
            epoch: batch.epoch.cast_signed(),
            at: batch.transactions.last().map_or(0, |last| last.at),
            ..Self::default()
        };
        for ((kind, id), row) in batch.objects() {
            match row {
                Some(row) => {
                    rows.put.0.push(kind);
                    rows.put.1.push(id);
                    rows.put.2.push(&row.account);
                    rows.put.3.push(row.version.cast_signed());
                    rows.put.4.push(&row.body);
                }
                None => {
                    rows.gone.0.push(kind);
                    rows.gone.1.push(id);
                }
            }
        }
        for (changes, event) in batch.events() {
            rows.events.0.push(changes.sequence.cast_signed());
            rows.events.1.push(changes.at);
            rows.events.2.push(&event.kind);
            rows.events.3.push(&event.resource_id);
        }
        for (changes, audit) in batch.audit() {
            rows.audit.0.push(changes.sequence.cast_signed());
            rows.audit.1.push(changes.at);
            rows.audit.2.push(&audit.action);
            rows.audit.3.push(&audit.detail);
        }
        for (digest, body) in batch.blobs() {
            match body {
                Some(body) => {
                    rows.kept.0.push(digest);
                    rows.kept.1.push(body);
                }
                None => rows.dropped.push(digest),
            }
        }
        rows
    }

    /// Answers whether the batch was written.
    async fn commit(&self, c: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let fences: i64 = sqlx::query_scalar(COMMIT)
            .bind(self.before)
            .bind(self.after)
            .bind(self.epoch)
            .bind(&self.put.0)
            .bind(&self.put.1)
            .bind(&self.put.2)
            .bind(&self.put.3)
            .bind(&self.put.4)
            .bind(&self.gone.0)
            .bind(&self.gone.1)
            .bind(self.at)
            .bind(&self.events.0)
            .bind(&self.events.1)
            .bind(&self.events.2)
            .bind(&self.events.3)
            .bind(&self.audit.0)
            .bind(&self.audit.1)
            .bind(&self.audit.2)
            .bind(&self.audit.3)
            .bind(&self.kept.0)
            .bind(&self.kept.1)
            .bind(&self.dropped)
            .fetch_one(c)
            .await?;
        Ok(fences == 1)
    }
}

/// What is read after this is of one moment.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

async fn load(c: &mut PgConnection) -> Result<State, ReadError> {
    let mut transaction = c.begin_with(ONE_MOMENT).await?;
    let mut state = State::default();
    let mut rows =
        sqlx::query("SELECT kind, id, account, version, body::text FROM objects").fetch(&mut *transaction);
    while let Some(row) = rows.try_next().await? {
        state.load(&object(&row)?)?;
    }
    drop(rows);
    let position: i64 = sqlx::query_scalar("SELECT sequence FROM position")
        .fetch_one(&mut *transaction)
        .await?;
    state.set_sequence(position.cast_unsigned());
    transaction.commit().await?;
    Ok(state)
}

fn object(row: &sqlx::postgres::PgRow) -> Result<Row, sqlx::Error> {
    let version: i64 = row.try_get(3)?;
    Ok(Row {
        kind: row.try_get(0)?,
        id: row.try_get(1)?,
        account: row.try_get(2)?,
        version: version.cast_unsigned(),
        body: row.try_get(4)?,
    })
}

/// `None`: what has changed since cannot be told, so that all is to be read.
async fn newer_than(c: &mut PgConnection, state: &State) -> Result<Option<Newer>, ReadError> {
    let since = state.sequence().cast_signed();
    let mut transaction = c.begin_with(ONE_MOMENT).await?;
    let (position, horizon): (i64, i64) = sqlx::query_as("SELECT sequence, horizon FROM position")
        .fetch_one(&mut *transaction)
        .await?;
    if since < horizon || position < since {
        return Ok(None);
    }
    let changed =
        sqlx::query("SELECT kind, id, account, version, body::text FROM objects WHERE version > $1")
            .bind(since)
            .fetch_all(&mut *transaction)
            .await?;
    let removed: Vec<(String, String)> = sqlx::query_as("SELECT kind, id FROM removed WHERE version > $1")
        .bind(since)
        .fetch_all(&mut *transaction)
        .await?;
    let instances: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT resource_id FROM events WHERE sequence > $1 AND starts_with(kind, 'instance.')",
    )
    .bind(since)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let changed = changed.iter().map(object).collect::<Result<Vec<Row>, _>>()?;
    let mut newer = state.clone();
    // All that changed goes first: in between, a unique key may have gone from one object to another.
    for (kind, id) in &removed {
        newer.unload(kind, id);
    }
    for row in &changed {
        newer.unload(&row.kind, &row.id);
    }
    for row in &changed {
        newer.load(row)?;
    }
    newer.set_sequence(position.cast_unsigned());
    Ok(Some(Newer {
        state: newer,
        instances: BTreeSet::from_iter(instances),
    }))
}
