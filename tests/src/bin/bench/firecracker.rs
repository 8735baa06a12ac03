//! Firecracker's API: HTTP over a Unix socket, as far as its snapshots need it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Its socket is there within this time, or it has failed to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to one Firecracker.
pub struct Api {
    runtime: Arc<Runtime>,
    sender: SendRequest<Full<Bytes>>,
}

/// What an [`Api`] is driven by. It is made before anything is timed.
///
/// # Errors
/// There is no thread left.
pub fn runtime() -> Result<Arc<Runtime>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(Arc::new(runtime))
}

impl Api {
    /// Connects as soon as the socket is there.
    ///
    /// # Errors
    /// It does not come.
    pub fn connect(socket: &Path, runtime: &Arc<Runtime>) -> Result<Self> {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                // There is nothing to wait for but the file itself. The runtime's timer is too coarse for it.
                Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_micros(50)),
                Err(error) => {
                    return Err(error).with_context(|| format!("connecting to {}", socket.display()));
                }
            }
        };
        stream.set_nonblocking(true)?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok::<_, anyhow::Error>(sender)
        })?;
        Ok(Self {
            runtime: Arc::clone(runtime),
            sender,
        })
    }

    pub fn pause(&mut self) -> Result<()> {
        self.call(Method::PATCH, "/vm", &json!({ "state": "Paused" }))
    }

    pub fn resume(&mut self) -> Result<()> {
        self.call(Method::PATCH, "/vm", &json!({ "state": "Resumed" }))
    }

    /// `kind` is `Full` or `Diff`.
    pub fn create_snapshot(&mut self, kind: &str, state: &Path, memory: &Path) -> Result<()> {
        let body = json!({ "snapshot_type": kind, "snapshot_path": state, "mem_file_path": memory });
        self.call(Method::PUT, "/snapshot/create", &body)
    }

    pub fn load_snapshot(&mut self, state: &Path, memory: &Path) -> Result<()> {
        let body = json!({
            "snapshot_path": state,
            "mem_backend": { "backend_type": "File", "backend_path": memory },
            "resume_vm": true,
        });
        self.call(Method::PUT, "/snapshot/load", &body)
    }

    fn call(&mut self, method: Method, path: &str, body: &Value) -> Result<()> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        self.runtime.block_on(async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                bail!(
                    "Firecracker refused {method} {path}: {status}: {}",
                    String::from_utf8_lossy(&body)
                );
            }
            Ok(())
        })
    }
}
