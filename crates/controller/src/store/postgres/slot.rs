//! A connection that is made when it is needed, and given up when it fails or is late.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{Mutex, MutexGuard};

/// How long ending a connection may take.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Slot {
    options: PgConnectOptions,
    connection: Mutex<Option<PgConnection>>,
}

/// A connection at work. It is closed when it is dropped, unless it is kept: whatever was under way on it.
pub(super) struct Lent<'s> {
    place: MutexGuard<'s, Option<PgConnection>>,
    connection: PgConnection,
}

impl Slot {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            connection: Mutex::new(None),
        }
    }

    /// The connection, once whoever has it is done.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, sqlx::Error> {
        let mut place = self.connection.lock().await;
        let connection = match place.take() {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await?,
        };
        Ok(Lent { place, connection })
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            // The server notices by itself if it does not hear of it.
            let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
        }
    }
}

impl Lent<'_> {
    /// Gives the connection back for the next use.
    pub(super) fn keep(self) {
        let Self {
            mut place,
            connection,
        } = self;
        *place = Some(connection);
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// # Errors
/// The work's, or that it took too long.
pub(super) async fn within<T, E: From<sqlx::Error>>(
    deadline: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(late().into()))
}

/// Does what can be done twice: once more if it fails. The server may have been restarted since the connection was made.
///
/// # Errors
/// Those of the second time.
pub(super) async fn twice<T, E: From<sqlx::Error>, F: Future<Output = Result<T, E>>>(
    deadline: Duration,
    work: impl Fn() -> F,
) -> Result<T, E> {
    match within(deadline, work()).await {
        Ok(done) => Ok(done),
        Err(_) => within(deadline, work()).await,
    }
}

pub(super) fn late() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        "the database did not answer in time",
    ))
}
