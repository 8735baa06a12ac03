//! QEMU's monitor (QMP) and the agent in the machine (QEMU Guest Agent): both take and give one JSON object a line.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How often a file, a state, or an end of a command is asked for.
pub(super) const POLL: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(super) struct Wire {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
    /// How often the machine has been reset, as far as what was received tells.
    pub(super) resets: u32,
}

impl Wire {
    /// Waits until `deadline` for a socket that QEMU is about to make.
    pub(super) fn connect(path: &Path, deadline: Instant) -> Result<Self> {
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(POLL);
                }
                Err(error) => return Err(error).with_context(|| format!("connecting to {}", path.display())),
            }
        };
        Ok(Self {
            stream: BufReader::new(stream),
            line: Vec::new(),
            resets: 0,
        })
    }

    pub(super) fn send(&mut self, command: &str, arguments: Value) -> Result<()> {
        let mut line = serde_json::to_vec(&json!({ "execute": command, "arguments": arguments }))?;
        line.push(b'\n');
        self.stream
            .get_mut()
            .write_all(&line)
            .with_context(|| format!("sending {command}"))
    }

    /// The next object that is neither a greeting nor an event; `None` when there is none until `deadline`.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(POLL);
            self.stream.get_ref().set_read_timeout(Some(left))?;
            match self.stream.read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.ends_with(b"\n") => {}
                Ok(_) => bail!("QEMU hung up"),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("reading from QEMU"),
            }
            let line = std::mem::take(&mut self.line);
            // The guest agent sets this byte before its answer to a synchronisation.
            let text = line.strip_prefix(&[0xff]).unwrap_or(&line);
            let value: Value = serde_json::from_slice(text)
                .with_context(|| format!("what QEMU said: {:?}", String::from_utf8_lossy(text)))?;
            if value["event"] == "RESET" {
                self.resets += 1;
            }
            if value.get("event").is_none() && value.get("QMP").is_none() {
                return Ok(Some(value));
            }
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&mut self, command: &str, arguments: Value, deadline: Instant) -> Result<Value> {
        self.send(command, arguments.clone())?;
        let mut answer = self
            .receive(deadline)?
            .with_context(|| format!("{command} was not answered in time"))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{command} {arguments}: {answer}"),
        }
    }
}
