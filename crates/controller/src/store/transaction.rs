//! One write transaction: rows, generations, events and the audit row become true together, and only then is anyone
//! told. Dropping it undoes everything.

use std::collections::BTreeSet;

use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::{Bus, Result, now};

#[derive(Debug)]
pub struct WriteTransaction {
    inner: Transaction<'static, Sqlite>,
    bus: Bus,
    hosts: BTreeSet<String>,
    instances: BTreeSet<String>,
    /// Calls for the request log, which says only what came true.
    calls: Vec<(String, String)>,
}

impl WriteTransaction {
    pub(super) fn new(inner: Transaction<'static, Sqlite>, bus: Bus) -> Self {
        Self {
            inner,
            bus,
            hosts: BTreeSet::new(),
            instances: BTreeSet::new(),
            calls: Vec::new(),
        }
    }

    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }

    /// What the host should do changes with this transaction: its generation grows, once.
    pub fn touch_host(&mut self, host_id: &str) {
        self.hosts.insert(host_id.to_owned());
    }

    /// Records what happened to a resource. `kind` reads like `instance.pending`.
    pub async fn event(&mut self, kind: &str, resource_id: &str) -> Result<()> {
        sqlx::query("INSERT INTO events (at, kind, resource_id) VALUES (?, ?, ?)")
            .bind(now())
            .bind(kind)
            .bind(resource_id)
            .execute(&mut *self.inner)
            .await?;
        if kind.starts_with("instance.") {
            self.instances.insert(resource_id.to_owned());
        }
        Ok(())
    }

    /// Records who asked for what. `detail` never holds user data, keys or tokens.
    pub async fn audit(&mut self, action: &str, detail: &serde_json::Value) -> Result<()> {
        let detail = detail.to_string();
        sqlx::query("INSERT INTO audit (at, action, detail) VALUES (?, ?, ?)")
            .bind(now())
            .bind(action)
            .bind(&detail)
            .execute(&mut *self.inner)
            .await?;
        self.calls.push((action.to_owned(), detail));
        Ok(())
    }

    /// Makes it true, then tells sessions and watchers.
    pub async fn commit(mut self) -> Result<()> {
        for host in &self.hosts {
            sqlx::query("UPDATE hosts SET generation = generation + 1 WHERE id = ?")
                .bind(host)
                .execute(&mut *self.inner)
                .await?;
        }
        self.inner.commit().await?;
        for (action, detail) in &self.calls {
            tracing::info!(action, detail, "done");
        }
        for host in &self.hosts {
            self.bus.host_touched(host);
        }
        for instance in &self.instances {
            self.bus.instance_changed(instance);
        }
        Ok(())
    }
}
