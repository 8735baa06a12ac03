//! Uploads that were cut off: what came of them is kept for a while, so that whoever uploads again goes on. The files are all there
//! is of it, so that it outlives `hearthd`: their names say whose they are, and what is in them how much has come.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hearth_api::v1::{GetImageUploadRequest, GetImageUploadResponse};
use hearth_api::{ApiError, ErrorCode};

use super::upload::{UploadError, received_of};
use super::upload_image::{blocking, wanted};
use crate::app::App;
use crate::services::encryption::Wanted;
use crate::services::images::check_name;
use crate::state::{Scope, key};

/// For so long, since something came.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Of an account. Of more, the oldest go.
const MOST: usize = 4;
const SUFFIX: &str = ".partial";

/// Files of uploads under way.
#[derive(Debug, Default)]
pub(in crate::services) struct Taken(Mutex<HashSet<PathBuf>>);

/// The right to a file, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    taken: Arc<Taken>,
    pub path: PathBuf,
}

impl Taken {
    /// # Errors
    /// Another call has it.
    pub(super) fn claim(self: &Arc<Self>, path: PathBuf) -> Result<Claim, ApiError> {
        let is_free = self.lock().insert(path.clone());
        if !is_free {
            return Err(ApiError::new(
                ErrorCode::IncorrectState,
                "An image of this name and size is being uploaded. If that was cut off just now, try again in a minute.",
            ));
        }
        Ok(Claim {
            taken: Arc::clone(self),
            path,
        })
    }

    fn is_taken(&self, path: &Path) -> bool {
        self.lock().contains(path)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.taken.lock().remove(&self.path);
    }
}

/// The file of an upload: an account's uploads of one name and size in a region are one.
pub(super) fn path(uploads: &Path, scope: &Scope, name: &str, size: u64) -> PathBuf {
    let of = key(&[scope.region(), name, &size.to_string()]);
    let hash = blake3::hash(of.as_bytes()).to_hex();
    uploads.join(format!("{}-{}{SUFFIX}", scope.account_id(), &hash[..32]))
}

/// Before a new one begins: the oldest of an account's go, those under way excepted.
pub(super) fn make_room(uploads: &Path, scope: &Scope, taken: &Taken) -> io::Result<()> {
    let own = format!("{}-", scope.account_id());
    let mut kept = Vec::new();
    for (path, modified) in listed(uploads)? {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().starts_with(&own));
        if name == Some(true) && !taken.is_taken(&path) {
            kept.push((modified, path));
        }
    }
    kept.sort();
    let too_many = (kept.len() + 1).saturating_sub(MOST);
    kept.into_iter()
        .take(too_many)
        .try_for_each(|(_, path)| remove(&path))
}

/// Removes those that are old.
///
/// # Errors
/// The directory cannot be read, or a file not removed.
pub(crate) fn sweep(uploads: &Path) -> io::Result<()> {
    for (path, modified) in listed(uploads)? {
        if modified.elapsed().unwrap_or_default() >= KEPT {
            tracing::info!(file = %path.display(), "removing an upload that nobody went on with");
            remove(&path)?;
        }
    }
    Ok(())
}

fn listed(uploads: &Path) -> io::Result<Vec<(PathBuf, SystemTime)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(uploads)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            match entry.metadata().and_then(|meta| meta.modified()) {
                Ok(modified) => found.push((entry.path(), modified)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// GetImageUpload.
pub(super) async fn get(
    app: &App,
    request: GetImageUploadRequest,
) -> Result<GetImageUploadResponse, ApiError> {
    check_name(&request.name, "")?;
    // What is to be stored encrypted is not gone on with.
    if wanted(app)? != Wanted::Plain {
        return Ok(GetImageUploadResponse::default());
    }
    let path = path(
        &app.uploads_dir(),
        &app.scope(),
        &request.name,
        request.size.unsigned_abs(),
    );
    let claim = app.imports.partial.claim(path)?;
    let told = blocking(move || {
        let failed = |source| UploadError::Io {
            doing: "reading",
            path: claim.path.clone(),
            source,
        };
        let file = match std::fs::File::open(&claim.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(GetImageUploadResponse::default());
            }
            opened => opened.map_err(failed)?,
        };
        let received = received_of(&file).map_err(failed)?;
        Ok(GetImageUploadResponse {
            received_bytes: received.cast_signed(),
            digest: hearth_image::disk_digest(&file, received).map_err(failed)?,
        })
    });
    told.await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(account: &str) -> Scope {
        Scope::new(account, "local-1")
    }

    #[test]
    fn an_account_keeps_its_newest_and_nobody_elses_go() {
        let dir = tempfile::tempdir().unwrap();
        let begin = SystemTime::now() - Duration::from_secs(1000);
        let make = |account: &str, name: &str, seconds: u64| {
            let path = path(dir.path(), &scope(account), name, 7);
            let file = std::fs::File::create(&path).unwrap();
            file.set_modified(begin + Duration::from_secs(seconds)).unwrap();
            path
        };
        let own: Vec<PathBuf> = (0..5)
            .map(|n| make("111111111111", &format!("a-{n}"), n))
            .collect();
        let other = make("222222222222", "a-0", 0);
        let taken = Arc::new(Taken::default());
        let claim = taken.claim(own[0].clone()).unwrap();
        assert!(taken.claim(own[0].clone()).is_err());
        make_room(dir.path(), &scope("111111111111"), &taken).unwrap();
        let left: Vec<bool> = own.iter().map(|path| path.exists()).collect();
        assert_eq!(
            (left, other.exists()),
            (vec![true, false, true, true, true], true)
        );
        drop(claim);
        make_room(dir.path(), &scope("111111111111"), &taken).unwrap();
        assert!(!own[0].exists() && own[2].exists());
        assert!(taken.claim(own[0].clone()).is_ok());
    }

    #[test]
    fn what_is_a_day_old_goes() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let old = path(dir.path(), &scope("1"), "old", 7);
        let young = path(dir.path(), &scope("1"), "young", 7);
        let not_ours = dir.path().join("notes");
        for (path, age) in [(&old, KEPT), (&young, KEPT / 2), (&not_ours, KEPT * 2)] {
            std::fs::File::create(path)
                .unwrap()
                .set_modified(now - age)
                .unwrap();
        }
        sweep(dir.path()).unwrap();
        assert_eq!(
            (old.exists(), young.exists(), not_ours.exists()),
            (false, true, true)
        );
    }

    #[test]
    fn an_upload_is_its_accounts_of_one_name_size_and_region() {
        let dir = Path::new("/u");
        let one = path(dir, &scope("1"), "a", 7);
        for other in [
            path(dir, &scope("2"), "a", 7),
            path(dir, &scope("1"), "b", 7),
            path(dir, &scope("1"), "a", 8),
            path(dir, &Scope::new("1", "local-2"), "a", 7),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one, path(dir, &scope("1"), "a", 7));
    }
}
