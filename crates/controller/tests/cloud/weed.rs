//! A server that speaks S3's protocol: SeaweedFS, in a directory of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;

use crate::support::SOON;

pub const BUCKET: &str = "hearth";
pub const ACCESS_KEY: &str = "hearth-tests";
pub const SECRET_KEY: &str = "only-for-tests";
/// Of the server, and of each of those that it has inside.
const PORTS: [&str; 12] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
];

pub struct Weed {
    dir: TempDir,
    ports: Vec<u16>,
    child: Child,
}

impl Weed {
    /// `None`, and it is said: there is no server here.
    pub async fn start(test: &str) -> Option<Self> {
        let Some(weed) = std::env::var_os("HEARTH_WEED") else {
            println!("SKIPPED: {test}: HEARTH_WEED is not set (scripts/test sets it)");
            return None;
        };
        let dir = TempDir::with_prefix("weed-").unwrap();
        // Held together, so that they differ.
        let listeners = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port());
        let ports: Vec<u16> = ports.collect();
        drop(listeners);
        let child = spawn(weed.as_ref(), &dir, &ports);
        let server = Self { dir, ports, child };
        server.until_ready().await;
        Some(server)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Where it was before.
    pub async fn restart(&mut self) {
        let weed = std::env::var_os("HEARTH_WEED").unwrap();
        self.child = spawn(weed.as_ref(), &self.dir, &self.ports);
        self.until_ready().await;
    }

    async fn until_ready(&self) {
        let store = bucket(&self.endpoint(), "");
        let begin = Instant::now();
        let ready = Key::from("ready");
        loop {
            let put = store.put(&ready, "yes".into());
            match tokio::time::timeout(std::time::Duration::from_secs(1), put).await {
                Ok(Ok(_)) => return,
                other => assert!(begin.elapsed() < SOON, "{other:?}\n{}", self.log()),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(weed: &Path, dir: &TempDir, ports: &[u16]) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(weed).arg("mini");
    for (name, port) in PORTS.iter().zip(ports) {
        command.arg(format!("-{name}={port}"));
    }
    command
        .arg(format!("-dir={}", data.display()))
        .args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-webdav=false",
            "-admin.ui=false",
        ])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What such a server has, as the repository there sees it.
pub fn bucket(endpoint: &str, prefix: &str) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_bucket_name(BUCKET);
    Arc::new(PrefixStore::new(store.build().unwrap(), prefix))
}
