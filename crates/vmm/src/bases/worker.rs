//! The thread that asks for chunks, and passes on what became of them.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Answer, Ask, Desk, Key, LINE_LIMIT, lock};

/// Bytes that are read at once.
const PIECE: usize = 4 << 10;

pub(super) struct Worker {
    desk: Arc<Desk>,
    listener: UnixListener,
    /// To who brings chunks.
    connection: Option<UnixStream>,
    /// The beginning of a line.
    input: Vec<u8>,
}

/// What there is to do.
struct Ready {
    caller: bool,
    words: bool,
}

impl Worker {
    pub(super) fn new(desk: Arc<Desk>, listener: UnixListener) -> Self {
        Self {
            desk,
            listener,
            connection: None,
            input: Vec::new(),
        }
    }

    /// Until nobody can ask any more.
    pub(super) fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => panic!("waiting for who brings the bases' chunks: {error}"),
            };
            if lock(&self.desk.papers).closed {
                return;
            }
            if ready.words {
                self.hear();
            }
            if ready.caller
                && let Ok((connection, _)) = self.listener.accept()
            {
                self.input.clear();
                self.connection = Some(connection);
                let mut papers = lock(&self.desk.papers);
                papers.fresh = papers.waiting.keys().cloned().collect();
            }
            self.ask();
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(&self.desk.bell, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        fds.extend(self.connection.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        while let Err(error) = poll(&mut fds, None) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if is_ready(0) {
            let _ = rustix::io::read(&self.desk.bell, &mut [0; 8]);
        }
        Ok(Ready {
            caller: is_ready(1),
            words: is_ready(2),
        })
    }

    /// Asks for what has not been asked for. What there is nobody to ask for is asked for when somebody comes.
    fn ask(&mut self) {
        let fresh = std::mem::take(&mut lock(&self.desk.papers).fresh);
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut lines = Vec::new();
        for (base, chunk) in fresh {
            let ask = Ask {
                base: base.to_string(),
                chunk,
            };
            // Two plain members can be written.
            let _ = serde_json::to_writer(&mut lines, &ask);
            lines.push(b'\n');
        }
        if connection.write_all(&lines).is_err() {
            self.connection = None;
        }
    }

    fn hear(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut piece = [0; PIECE];
        match connection.read(&mut piece) {
            Ok(len @ 1..) => self.input.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                self.connection = None;
                return;
            }
        }
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(answer) => self.pass_on(answer),
                Err(error) => {
                    tracing::warn!(%error, "who brings the bases' chunks said what is no answer");
                    self.connection = None;
                    return;
                }
            }
        }
        if self.input.len() > LINE_LIMIT {
            self.connection = None;
        }
    }

    fn pass_on(&self, answer: Answer) {
        let key: Key = (answer.base.into(), answer.chunk);
        let waiting = lock(&self.desk.papers).waiting.remove(&key);
        for done in waiting.into_iter().flatten() {
            done(match &answer.error {
                None => Ok(()),
                Some(error) => Err(io::Error::other(error.clone())),
            });
        }
    }
}
