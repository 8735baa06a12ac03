//! Files in memory, for tests and fuzzing.

use super::{FsError, Kind};

/// Absolute paths and contents. A directory is there if something is in it.
pub(super) struct Files(pub(super) Vec<(String, Vec<u8>)>);

impl Files {
    fn find(&self, path: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(name, _)| name == path)
            .map(|(_, content)| content.as_slice())
    }

    pub(super) fn kind(&self, path: &str) -> Result<Option<Kind>, FsError> {
        let path = path.trim_end_matches('/');
        if let Some(content) = self.find(path) {
            return Ok(Some(Kind::File(content.len() as u64)));
        }
        let below = format!("{path}/");
        let is_directory = self.0.iter().any(|(name, _)| name.starts_with(&below));
        Ok(is_directory.then_some(Kind::Directory))
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let names = self.0.iter().filter_map(|(name, _)| name.strip_prefix(&below));
        let mut names: Vec<String> = names
            .map(|name| name.split('/').next().unwrap_or_default().to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    pub(super) fn append(&self, path: &str, content: &mut Vec<u8>) -> Result<(), FsError> {
        content.extend_from_slice(self.find(path).unwrap_or_default());
        Ok(())
    }

    pub(super) fn read_at(&self, path: &str, position: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let content = self.find(path).unwrap_or_default();
        let rest = content.get(position as usize..).unwrap_or_default();
        let got = rest.len().min(buf.len());
        buf[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }
}
