//! Fetching a disk image of an address, into a file without a name.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::tls::{RootCerts, TlsConfig};

use crate::error::CliError;
use crate::upload::progress;

/// For files that may be large and need not outlive the program (hier(7)).
const ROOM: &str = "/var/tmp";
const CONNECT: Duration = Duration::from_secs(30);
/// Until an answer begins.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE: usize = 1 << 20;

/// Whether a disk image is named by an address, and not by a path.
pub(crate) fn is_address(image: &str) -> bool {
    image.starts_with("https://") || image.starts_with("http://")
}

/// Answers a file whose SHA-256 is this one, in hex.
///
/// # Errors
/// The address does not answer, its file is another one, or there is no room for it.
pub(crate) fn fetch(address: &str, sha256: &str) -> Result<File, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::parameter("--disk-image", format!("Unable to fetch {address}: {error}"))
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .into();
    let answer = agent.get(address).call().map_err(|error| failed(&error))?;
    let mut body = answer.into_body();
    let progress = progress("fetching", body.content_length().unwrap_or_default());
    let mut from = body.as_reader();
    let full = |cause| CliError::io(format!("writing the disk image into {ROOM}"), cause);
    let mut file = tempfile::tempfile_in(ROOM).map_err(full)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let came = from.read(&mut piece).map_err(|error| failed(&error))?;
        if came == 0 {
            break;
        }
        hasher.update(&piece[..came]);
        file.write_all(&piece[..came]).map_err(full)?;
        progress.inc(came as u64);
    }
    let found = format!("{:x}", hasher.finalize());
    match found.eq_ignore_ascii_case(sha256.trim()) {
        true => Ok(file),
        false => Err(CliError::parameter(
            "--sha256",
            format!("{address} is another file: its SHA-256 is {found}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Seek as _};
    use std::net::TcpListener;

    use super::*;

    /// An address that gives an answer once.
    fn served(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/disk.raw", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let _ = (&stream).write_all(answer);
        });
        address
    }

    #[test]
    fn a_file_is_fetched_when_it_is_the_right_one() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndisk";
        const SHA256: &str = "F3E28BBFA421E91A7A9B8C0D1F5A2B22CCA2B7C6F0BE4FE1D1A2ED6F9FD0B9A4";
        let right = format!("{:X}", Sha256::digest(b"disk"));
        let mut file = fetch(&served(ANSWER), &right).unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "disk");
        let refused = fetch(&served(ANSWER), SHA256).unwrap_err().to_string();
        assert!(refused.contains(&right.to_lowercase()), "{refused}");
    }

    #[test]
    fn what_does_not_come_is_an_error() {
        for (answer, why) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "404"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndisk",
                "Unable to fetch",
            ),
        ] {
            let error = fetch(&served(answer), "00").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
