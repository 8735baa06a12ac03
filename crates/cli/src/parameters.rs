//! Values of parameters: `file://` and `fileb://`.

use crate::error::CliError;

/// The bytes of a parameter: those of a file for `file://PATH` and `fileb://PATH`, else its own.
pub(crate) fn load_bytes(parameter: &str, value: &str) -> Result<Vec<u8>, CliError> {
    let path = value
        .strip_prefix("file://")
        .or_else(|| value.strip_prefix("fileb://"));
    match path {
        Some(path) => std::fs::read(path)
            .map_err(|e| CliError::parameter(parameter, format!("Unable to load paramfile {value}: {e}"))),
        None => Ok(value.as_bytes().to_vec()),
    }
}

/// As [`load_bytes`], for parameters that must be text.
pub(crate) fn load_text(parameter: &str, value: &str) -> Result<String, CliError> {
    String::from_utf8(load_bytes(parameter, value)?)
        .map_err(|_| CliError::parameter(parameter, format!("{value} is not text (UTF-8)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, b"\xffdata").unwrap();
        assert_eq!(
            load_bytes("--user-data", &format!("fileb://{}", path.display())).unwrap(),
            b"\xffdata"
        );
        assert!(load_text("--user-data", &format!("file://{}", path.display())).is_err());
        let error = load_bytes("--user-data", "file:///nonexistent").unwrap_err();
        assert_eq!(error.exit_code(), crate::error::USAGE);
    }
}
