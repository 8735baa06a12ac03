//! Bases for whoever reads them on this host besides monitors: snapshots of volumes read what was never written.

use std::io;
use std::sync::Arc;

use hearth_block::base::{Done, Fetch};
use hearth_block::{Base, Cipher};
use tokio::runtime::Handle;

use super::{ImageError, Images};
use crate::chain;
use crate::volume;

impl Images {
    /// Opens a base of this host, with its [cipher](Self::cipher). A read of what has not come waits until it has, and so does not belong on a thread of the
    /// runtime. Blocks.
    ///
    /// # Errors
    /// It is not here, or is damaged.
    pub fn reader(
        &self,
        image_id: &str,
        cipher: Option<Arc<Cipher>>,
        runtime: &Handle,
    ) -> Result<Base, ImageError> {
        let base = self.read_raw(image_id, runtime)?;
        Ok(match cipher {
            Some(cipher) => base.encrypted(cipher),
            None => base,
        })
    }

    fn read_raw(&self, image_id: &str, runtime: &Handle) -> Result<Base, ImageError> {
        let volume::Base { disk, map, .. } =
            volume::open_base(&self.dir, image_id).map_err(|source| ImageError::Read {
                image_id: image_id.to_owned(),
                source,
            })?;
        let Some(map) = map else {
            return Ok(Base::whole(disk));
        };
        let fetcher = Fetcher {
            images: self.clone(),
            image_id: image_id.to_owned(),
            runtime: runtime.clone(),
        };
        Base::in_part(disk, map, Arc::new(fetcher)).map_err(|source| ImageError::Open {
            image_id: image_id.to_owned(),
            source,
        })
    }
}

struct Fetcher {
    images: Images,
    image_id: String,
    runtime: Handle,
}

impl Fetch for Fetcher {
    fn fetch(&self, chunk: u64, done: Done) {
        let (images, image_id) = (self.images.clone(), self.image_id.clone());
        self.runtime.spawn(async move {
            let come = images.demand(&image_id, chunk).await;
            done(come.map_err(|error| io::Error::other(chain(&*error))));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearth_api::agent::ImageChunk;
    use hearth_block::base::{CHUNK, Filling};

    use super::super::{ImageName, lay, open};
    use super::*;
    use crate::link::Link;
    use crate::paths::DataDir;

    const ID: &str = "ami-1";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_base_is_read_as_far_as_it_has_come_and_then_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        // A control plane that is away.
        let (_channel, link) = Link::new();
        let images = Images::new(dir.clone(), link, 50);
        let runtime = Handle::current();
        assert!(images.reader(ID, None, &runtime).is_err());
        let name = ImageName {
            image_id: ID.to_owned(),
            size: 2 * CHUNK,
            encrypted: false,
        };
        lay(&dir, &name).unwrap();
        let filling: Filling = open(&dir, ID, None).unwrap().unwrap();
        filling.put(0, b"what has come").unwrap();
        filling.settle().unwrap();
        let base = images.reader(ID, None, &runtime).unwrap();
        let read = move |offset| {
            let mut found = [0; 13];
            base.read_exact_at(&mut found, offset).map(|()| (base, found))
        };
        let (base, found) = tokio::task::spawn_blocking(move || read(0))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&found, b"what has come");
        let mut late = tokio::task::spawn_blocking(move || {
            let mut found = [7; 4];
            base.read_exact_at(&mut found, CHUNK).map(|()| found)
        });
        let waits = tokio::time::timeout(Duration::from_millis(200), &mut late).await;
        assert!(waits.is_err(), "it has not come");
        let coming = images.coming.lock().await.get(ID).cloned().unwrap();
        let told = ImageChunk {
            offset: CHUNK,
            data: b"late".as_slice().into(),
        };
        coming.put(1, told).await.unwrap();
        assert_eq!(&late.await.unwrap().unwrap(), b"late");
        // A whole one asks nobody.
        while dir.image_map(ID).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let base = images.reader(ID, None, &runtime).unwrap();
        let mut found = [0; 4];
        base.read_exact_at(&mut found, CHUNK).unwrap();
        assert_eq!(&found, b"late");
    }
}
