//! A connection that is through the door.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use crate::call::Caller;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection to the API's socket.
#[derive(Debug)]
pub struct CallerStream {
    stream: UnixStream,
    uid: u32,
    pid: i32,
}

impl CallerStream {
    /// # Errors
    /// The kernel does not say who it is.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let found = stream.peer_cred()?;
        Ok(Self {
            stream,
            uid: found.uid(),
            pid: found.pid().unwrap_or(0),
        })
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl Connected for CallerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller::Process {
            uid: self.uid,
            pid: self.pid,
        }
    }
}

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A stream whose peer has said what it speaks, and that ends when its place is needed.
pub struct Connection<S> {
    stream: S,
    /// What the peer has said, and the reader has yet to see.
    unread: Bytes,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// The place.
    _held: Box<dyn fmt::Debug + Send>,
}

/// No method of HTTP/1.1 begins as [`PREFACE`] does for so many bytes, and no request has fewer.
const TOLD_APART: usize = 4;

fn no_http2() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no HTTP/2")
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Waits for the preface of a peer that has to speak HTTP/2.
    ///
    /// # Errors
    /// It says something else, or goes.
    pub async fn begin(stream: S) -> io::Result<Self> {
        match Self::hear(stream).await? {
            (Protocol::Http2, connection) => Ok(connection),
            (Protocol::Http1, _) => Err(no_http2()),
        }
    }

    /// Waits until the peer has said what it speaks.
    ///
    /// # Errors
    /// It begins as HTTP/2 does and goes on otherwise, or goes.
    pub async fn hear(mut stream: S) -> io::Result<(Protocol, Self)> {
        let mut said = [0; PREFACE.len()];
        let (first, rest) = said.split_at_mut(TOLD_APART);
        stream.read_exact(first).await?;
        let protocol = match PREFACE.starts_with(first) {
            true => Protocol::Http2,
            false => Protocol::Http1,
        };
        let mut unread = first.len();
        if protocol == Protocol::Http2 {
            unread += stream.read_exact(rest).await?;
            if said != *PREFACE {
                return Err(no_http2());
            }
        }
        let connection = Self {
            stream,
            unread: Bytes::copy_from_slice(said.get(..unread).unwrap_or_default()),
            end: Box::pin(std::future::pending()),
            ended: false,
            _held: Box::new(()),
        };
        Ok((protocol, connection))
    }
}

impl<S> Connection<S> {
    /// The connection lasts until `end`, and holds `place` as long.
    pub fn keep_until(
        self,
        end: impl Future<Output = ()> + Send + 'static,
        place: impl fmt::Debug + Send + 'static,
    ) -> Self {
        Self {
            end: Box::pin(end),
            _held: Box::new(place),
            ..self
        }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ended || self.end.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection made room for another",
            ));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let now = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}
