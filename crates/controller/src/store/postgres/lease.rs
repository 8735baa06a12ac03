//! The lease as rows of the database.

use std::time::Duration;

use super::Postgres;
use super::slot::{twice, within};
use crate::store::lease::{Held, Lease};

/// How long a statement about the lease may take. A leader renews several times within the lease's duration.
const DEADLINE: Duration = Duration::from_secs(1);

/// Takes the lease from a holder that stood still: by its epoch and renewals nobody else has taken it, and it has not
/// been renewed.
const TAKE: &str = "
WITH taken AS (
    UPDATE lease SET epoch = epoch + 1, renewals = 0, holder = $3, endpoint = $4
    WHERE epoch = $1 AND renewals = $2 RETURNING epoch
)
UPDATE position SET epoch = taken.epoch FROM taken RETURNING position.epoch";

/// A holder that is stopped may be in the middle of a commit, and keep the position locked.
const END_CONNECTIONS: &str = "
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()";

/// The name of a process's connections.
pub(super) fn application(process: &str) -> String {
    format!("hearthd {process}")
}

#[tonic::async_trait]
impl Lease for Postgres {
    async fn look(&self) -> Result<Held, sqlx::Error> {
        const LOOK: &str = "
            SELECT epoch, renewals, holder, endpoint, EXISTS (
                SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'hearthd ' || holder
            ) FROM lease";
        let look = || async {
            let mut c = self.keeper.lend().await?;
            let row = sqlx::query_as(LOOK).fetch_one(&mut *c).await?;
            c.keep();
            Ok::<(i64, i64, String, String, bool), sqlx::Error>(row)
        };
        let (epoch, renewals, holder, endpoint, connected) = twice(DEADLINE, look).await?;
        Ok(Held {
            epoch: epoch.cast_unsigned(),
            renewals,
            holder,
            endpoint,
            connected,
        })
    }

    async fn take(&self, from: &Held, process: &str, endpoint: &str) -> Result<Option<u64>, sqlx::Error> {
        let holder = application(&from.holder);
        let take = async {
            let mut c = self.keeper.lend().await?;
            sqlx::query(END_CONNECTIONS)
                .bind(&holder)
                .execute(&mut *c)
                .await?;
            let epoch = sqlx::query_scalar(TAKE)
                .bind(from.epoch.cast_signed())
                .bind(from.renewals)
                .bind(process)
                .bind(endpoint)
                .fetch_optional(&mut *c)
                .await?;
            c.keep();
            Ok::<Option<i64>, sqlx::Error>(epoch)
        };
        let epoch = within(DEADLINE, take).await?;
        Ok(epoch.map(i64::cast_unsigned))
    }

    async fn renew(&self, epoch: u64) -> Result<bool, sqlx::Error> {
        const RENEW: &str = "UPDATE lease SET renewals = renewals + 1 WHERE epoch = $1";
        let renew = || async {
            let mut c = self.keeper.lend().await?;
            let query = sqlx::query(RENEW).bind(epoch.cast_signed());
            let renewed = query.execute(&mut *c).await?.rows_affected();
            c.keep();
            Ok(renewed == 1)
        };
        twice(DEADLINE, renew).await
    }

    async fn give_back(&self, epoch: u64) -> Result<(), sqlx::Error> {
        const GIVE_BACK: &str = "UPDATE lease SET renewals = renewals + 1, holder = '' WHERE epoch = $1";
        let give_back = async {
            let mut c = self.keeper.lend().await?;
            let query = sqlx::query(GIVE_BACK).bind(epoch.cast_signed());
            query.execute(&mut *c).await?;
            c.keep();
            Ok(())
        };
        within(DEADLINE, give_back).await
    }

    async fn attend(&self, endpoint: &str) -> Result<Vec<String>, sqlx::Error> {
        const ATTEND: &str = "INSERT INTO members (endpoint, seen) VALUES ($1, clock_timestamp())
            ON CONFLICT (endpoint) DO UPDATE SET seen = excluded.seen";
        const FORGET: &str = "DELETE FROM members WHERE seen < clock_timestamp() - interval '1 day'";
        const LIST: &str = "SELECT endpoint FROM members ORDER BY endpoint";
        let attend = || async {
            let mut c = self.keeper.lend().await?;
            sqlx::query(ATTEND).bind(endpoint).execute(&mut *c).await?;
            sqlx::query(FORGET).execute(&mut *c).await?;
            let members = sqlx::query_scalar(LIST).fetch_all(&mut *c).await?;
            c.keep();
            Ok(members)
        };
        twice(DEADLINE, attend).await
    }

    async fn authority(&self, ours: Option<&str>) -> Result<Option<String>, sqlx::Error> {
        const OFFER: &str = "INSERT INTO authority (pem) VALUES ($1) ON CONFLICT DO NOTHING";
        let share = || async {
            let mut c = self.keeper.lend().await?;
            if let Some(ours) = ours {
                sqlx::query(OFFER).bind(ours).execute(&mut *c).await?;
            }
            let pem = sqlx::query_scalar("SELECT pem FROM authority")
                .fetch_optional(&mut *c)
                .await?;
            c.keep();
            Ok(pem)
        };
        twice(super::DEADLINE, share).await
    }
}
