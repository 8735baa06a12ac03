//! The few requests that the repository makes of an object store, with errors that say what was being done to what.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::error::Error;

#[derive(Debug, Clone)]
pub(crate) struct Objects(Arc<dyn ObjectStore>);

/// An object of a listing.
pub(crate) struct Listed {
    pub path: Path,
    /// The last part of its path.
    pub name: Option<String>,
    /// Bytes.
    pub size: u64,
    modified: SystemTime,
}

impl Listed {
    /// Since it was written, by the clocks of store and caller.
    pub fn age(&self) -> Duration {
        self.modified.elapsed().unwrap_or_default()
    }
}

impl Objects {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// `None`: it is not there.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let got = async { self.0.get(path).await?.bytes().await };
        absent(got.await).map_err(|source| failed("reading", path, source))
    }

    pub async fn exists(&self, path: &Path) -> Result<bool, Error> {
        let head = absent(self.0.head(path).await);
        let head = head.map_err(|source| failed("looking for", path, source))?;
        Ok(head.is_some())
    }

    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let put = self.0.put(path, PutPayload::from_bytes(bytes)).await;
        put.map_err(|source| failed("writing", path, source))?;
        Ok(())
    }

    /// Answers whether it was made: nothing happens to one that is there.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, Error> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .0
            .put_opts(path, PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(failed("writing", path, source)),
        }
    }

    /// What is not there is no error.
    pub async fn delete(&self, paths: Vec<Path>) -> Result<(), Error> {
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.0.delete_stream(paths);
        while let Some(one) = deleted.next().await {
            if let Err(source) = absent(one) {
                return Err(failed("deleting from", &Path::default(), source));
            }
        }
        Ok(())
    }

    /// All objects of a room, in no order.
    pub async fn list(&self, room: &str) -> Result<Vec<Listed>, Error> {
        let room = Path::from(room);
        let found = self.0.list(Some(&room)).map_ok(|object| Listed {
            name: object.location.filename().map(str::to_owned),
            size: object.size,
            modified: object.last_modified.into(),
            path: object.location,
        });
        found
            .try_collect()
            .await
            .map_err(|source| failed("listing", &room, source))
    }
}

fn absent<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(doing: &'static str, path: &Path, source: object_store::Error) -> Error {
    Error::Store {
        doing,
        object: path.to_string(),
        source,
    }
}
