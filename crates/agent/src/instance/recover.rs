//! Runs that the host's restart has cut off are started again, a few at a time: all at once they would wait for the
//! same disks and CPUs.

use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::InstanceIntent;
use tokio::sync::oneshot;

use super::Actor;

/// A launch that takes longer does not keep others waiting.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(60);
/// A guest's boot is busiest at its beginning: the next instance is started this much later.
const BETWEEN_STARTS: Duration = Duration::from_secs(5);

impl Actor {
    /// Launches `run` again when it is its turn; returns before that when the intent changes.
    pub(super) async fn recover(&mut self, intent: &InstanceIntent, run: u64, reboot: u64) {
        let turn = tokio::select! {
            turn = Arc::clone(&self.context.recovering).acquire_owned() => turn,
            Ok(()) = self.wanted.changed() => return,
        };
        let recoveries = self.record.recoveries.saturating_add(1);
        tracing::info!(
            instance = self.record.instance_id,
            run,
            recoveries,
            "starting it again after the host's restart"
        );
        let (launched, done) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LAUNCH_PATIENCE, done).await;
            tokio::time::sleep(BETWEEN_STARTS).await;
            drop(turn);
        });
        self.launch(intent, run, reboot, recoveries).await;
        drop(launched);
    }
}
