//! Copies of one instance with all that it holds, written into the database of a `hearthd` that does not run.

use std::path::Path;

use anyhow::{Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// An object of an instance: its kind, the path to the instance's id in it, the column of [`Database::fill`] with the
/// copy's id, and what else differs, as paths and columns.
struct Copied {
    kind: &'static str,
    owner: &'static str,
    id: &'static str,
    changes: &'static [(&'static str, &'static str)],
}

const COPIED: &[Copied] = &[
    Copied {
        kind: "instance",
        owner: "id",
        id: "instance",
        changes: &[
            ("id", "instance"),
            ("host_id", "host"),
            ("reservation_id", "reservation"),
            ("state", "state"),
            ("tags.Part", "part"),
        ],
    },
    Copied {
        kind: "claim",
        owner: "instance_id",
        id: "instance",
        changes: &[("instance_id", "instance"), ("host_id", "host")],
    },
    Copied {
        kind: "network-interface",
        owner: "attachment.instance_id",
        id: "interface",
        changes: &[
            ("id", "interface"),
            ("attachment.instance_id", "instance"),
            ("private_ip", "address"),
            ("mac_address", "mac"),
        ],
    },
    Copied {
        kind: "volume",
        owner: "attachment.instance_id",
        id: "volume",
        changes: &[
            ("id", "volume"),
            ("attachment.instance_id", "instance"),
            ("host_id", "host"),
        ],
    },
];

pub(super) enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    pub(super) async fn sqlite(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(path);
        Ok(Self::Sqlite(options.connect().await?))
    }

    pub(super) async fn postgres(url: &str) -> Result<Self> {
        Ok(Self::Postgres(PgConnection::connect(url).await?))
    }

    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.close().await?),
            Self::Postgres(connection) => Ok(connection.close().await?),
        }
    }

    pub(super) async fn has_objects(&mut self) -> Result<bool> {
        let tables = match self {
            Self::Sqlite(_) => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'objects'",
            Self::Postgres(_) => "SELECT tablename::text FROM pg_tables WHERE tablename = 'objects'",
        };
        Ok(self.text(tables).await?.is_some())
    }

    /// Copies a running instance so often.
    pub(super) async fn fill(&mut self, count: usize) -> Result<()> {
        let original = format!(
            "SELECT id FROM objects WHERE kind = 'instance' AND {} = 'running' LIMIT 1",
            self.field("body", "state")
        );
        let original = self.text(&original).await?.unwrap_or_default();
        let reservation = format!(
            "SELECT {} FROM objects WHERE kind = 'instance' AND id = '{original}'",
            self.field("body", "reservation_id")
        );
        let reservation = self.text(&reservation).await?.unwrap_or_default();
        self.execute(&self.copies(count)).await?;
        let reservations = Copied {
            kind: "reservation",
            owner: "id",
            id: "reservation",
            changes: &[("id", "reservation")],
        };
        self.copy(&reservations, &reservation, count).await?;
        for copied in COPIED {
            self.copy(copied, &original, count).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, copied: &Copied, original: &str, count: usize) -> Result<()> {
        let Copied {
            kind,
            owner,
            id,
            changes,
        } = copied;
        let copy = format!(
            "INSERT INTO objects (kind, id, account, version, body)
             SELECT o.kind, c.{id}, o.account, o.version, {}
             FROM copies c, objects o WHERE o.kind = '{kind}' AND {} = '{original}'",
            self.changed("o.body", changes),
            self.field("o.body", owner)
        );
        let made = self.execute(&copy).await?;
        ensure!(made == count as u64, "{made} copies of the {kind}");
        Ok(())
    }

    /// Makes the table `copies`: what differs from copy to copy.
    fn copies(&self, count: usize) -> String {
        let numbers = match self {
            Self::Sqlite(_) => format!(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
            ),
            Self::Postgres(_) => format!("WITH numbers(n) AS (SELECT generate_series(1, {count}))"),
        };
        // A prefix, and a number in hexadecimal digits.
        let hex = |prefix: &str, number: &str, digits: u8| match self {
            Self::Sqlite(_) => format!("printf('{prefix}%0{digits}x', {number})"),
            Self::Postgres(_) => format!("'{prefix}' || lpad(to_hex({number}), {digits}, '0')"),
        };
        let octets = ["n >> 16", "(n >> 8) & 255", "n & 255"];
        let [high, middle, low] = octets;
        let mac = octets.map(|octet| hex(":", octet, 2)).join(" || ");
        format!(
            "CREATE TEMP TABLE copies AS {numbers},
                 hosts(host, place) AS (SELECT id, row_number() OVER (ORDER BY id) - 1 FROM objects WHERE kind = 'host')
             SELECT host, {} AS instance, {} AS reservation, {} AS interface, {} AS volume,
                 CASE WHEN n % 100 = 0 THEN 'stopped' ELSE 'running' END AS state,
                 CAST(n / 1000 AS TEXT) AS part, '06:00:00' || {mac} AS mac,
                 '10.' || ({high}) || '.' || ({middle}) || '.' || ({low}) AS address
             FROM numbers JOIN hosts ON place = n % (SELECT count(*) FROM hosts)",
            hex("i-", "n", 17),
            hex("r-", "n", 17),
            hex("eni-", "n", 17),
            hex("vol-", "n", 17),
        )
    }

    /// The text at a path (`a.b`) of a JSON document.
    fn field(&self, body: &str, path: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("{body} ->> '$.{path}'"),
            Self::Postgres(_) => format!("{body}::jsonb #>> '{{{}}}'", path.replace('.', ",")),
        }
    }

    /// A JSON document with other texts at some paths.
    fn changed(&self, body: &str, changes: &[(&str, &str)]) -> String {
        changes
            .iter()
            .fold(body.to_owned(), |body, (path, column)| match self {
                Self::Sqlite(_) => format!("json_set({body}, '$.{path}', c.{column})"),
                Self::Postgres(_) => format!(
                    "jsonb_set({body}::jsonb, '{{{}}}', to_jsonb(c.{column}::text))",
                    path.replace('.', ",")
                ),
            })
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        let query = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query(query).execute(connection).await?.rows_affected(),
            Self::Postgres(connection) => sqlx::query(query).execute(connection).await?.rows_affected(),
        })
    }

    async fn text(&mut self, sql: &str) -> Result<Option<String>> {
        let query = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_optional(connection).await?,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_optional(connection).await?,
        })
    }
}
