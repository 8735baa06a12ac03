//! An object store in memory, in which every request lets others go before it, some of them for long.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Repository;

#[derive(Debug)]
pub(super) struct Shaky {
    inner: Arc<InMemory>,
    chance: Chance,
    /// A snapshot that is deleted, and collected, just before the first pin is there.
    before_pin: Mutex<Option<String>>,
}

#[derive(Debug, Clone)]
struct Chance(Arc<Mutex<StdRng>>);

impl Shaky {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inner: Arc::new(InMemory::new()),
            before_pin: Mutex::new(None),
            chance: Chance(Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0xfeed)))),
        }
    }

    pub(super) fn delete_before_pin(&self, snapshot: &str) {
        *self.before_pin.lock().unwrap() = Some(snapshot.to_owned());
    }
}

impl Chance {
    async fn shake(&self) {
        let turns = {
            let mut rng = self.0.lock().unwrap();
            match rng.random_range(0..20) {
                0 => 200,
                1..8 => rng.random_range(1..10),
                _ => 0,
            }
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl fmt::Display for Shaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shaky")
    }
}

#[async_trait]
impl ObjectStore for Shaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.chance.shake().await;
        let doomed = self
            .before_pin
            .lock()
            .unwrap()
            .take_if(|_| location.as_ref().starts_with("pins/"));
        if let Some(snapshot) = doomed {
            let repository = Repository::new(Arc::clone(&self.inner) as Arc<dyn ObjectStore>);
            repository.delete(&snapshot).await.unwrap();
            repository.collect(|| true).await.unwrap();
        }
        let put = self.inner.put_opts(location, payload, options).await;
        self.chance.shake().await;
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.chance.shake().await;
        let got = self.inner.get_opts(location, options).await;
        self.chance.shake().await;
        got
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let chance = self.chance.clone();
        // One after the other: it may be cut off between any two.
        let locations = locations.then(move |location| {
            let chance = chance.clone();
            async move {
                chance.shake().await;
                location
            }
        });
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
