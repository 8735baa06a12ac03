//! Keys of what lies encrypted, as the fake control plane gives them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hearth_api::agent::DiskKey;
use hearth_block::{Cipher, Key};
use tonic::{Response, Status};

use super::Cloud;

/// What guests of these tests write, and what must not be found on the host.
pub const MARK: &[u8] = b"PLAINTEXT OF THE GUEST";

#[derive(Default)]
pub struct Keys {
    pub given: BTreeMap<String, Vec<u8>>,
    /// No key is given, for this reason.
    pub refused: Option<&'static str>,
    /// The ids that were asked for.
    pub asked: Vec<String>,
}

impl Keys {
    /// Their bytes.
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.given.values().cloned().collect()
    }

    pub(super) fn give(&mut self, id: &str) -> Result<Response<DiskKey>, Status> {
        self.asked.push(id.to_owned());
        match (self.refused, self.given.get(id)) {
            (Some(reason), _) => Err(Status::failed_precondition(reason)),
            (None, Some(key)) => Ok(Response::new(DiskKey { key: key.clone() })),
            (None, None) => Err(Status::not_found("it is not encrypted")),
        }
    }
}

impl Cloud {
    /// Gives something a key, and answers its cipher.
    pub fn encrypt(&self, id: &str) -> Arc<Cipher> {
        let key: Vec<u8> = (0..64).map(|_| rand::random()).collect();
        let cipher = Cipher::new(&Key::new(&key).unwrap()).unwrap();
        self.keys.lock().unwrap().given.insert(id.to_owned(), key);
        Arc::new(cipher)
    }
}

/// The files under a directory that hold these bytes.
pub fn files_with(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if path.is_file() && has(&std::fs::read(&path).unwrap(), bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn has(contents: &[u8], bytes: &[u8]) -> bool {
    contents.windows(bytes.len()).any(|window| window == bytes)
}
