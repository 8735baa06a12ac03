//! Tidies up what nobody asks for any more: terminated instances, old history, disks of images that are gone.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::store::{Result, images, purge};

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    let visible = Duration::from_secs(app.config.terminated_visible.into());
    // Often enough that "about an hour" is about an hour, and that a test with seconds does not wait long.
    let period = (visible / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.ending.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = tidy(&app, visible).await {
            tracing::error!(%error, "tidying up");
        }
    }
}

async fn tidy(app: &App, visible: Duration) -> Result<()> {
    let visible_ms = i64::try_from(visible.as_millis()).unwrap_or(i64::MAX);
    let mut read = app.store.read().await?;
    let due = purge::is_due(&mut read, visible_ms).await?;
    drop(read);
    if !due {
        return Ok(());
    }
    let mut tx = app.store.write().await?;
    let purged = purge::terminated(&mut tx, visible_ms).await?;
    let history = purge::history(&mut tx).await?;
    let unused = images::forget_unused(tx.connection()).await?;
    tx.commit().await?;
    // After the commit: a disk without a row is swept at the next start, a row without a disk would be a lie.
    for image in &unused {
        if let Err(error) = tokio::fs::remove_file(app.image_path(image)).await {
            tracing::warn!(image, %error, "removing an image's disk");
        }
    }
    tracing::info!(instances = purged, history, images = unused.len(), "tidied up");
    Ok(())
}

/// At the start: removes uploads that never ended, and disks whose image has no row.
pub async fn sweep_images(app: &App) -> anyhow::Result<()> {
    let mut read = app.store.read().await?;
    let known: HashSet<String> = images::ids(&mut read)
        .await?
        .into_iter()
        .map(|id| format!("{id}.raw"))
        .collect();
    drop(read);
    sweep(&app.images_dir(), &known)?;
    Ok(())
}

fn sweep(dir: &std::path::Path, known: &HashSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Only what this program names so: other files are not ours.
        let ours = name.starts_with("ami-") && (name.ends_with(".raw") || name.ends_with(".upload"));
        if ours && !known.contains(name.as_ref()) {
            tracing::info!(file = %name, "removing what an interrupted import left");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
