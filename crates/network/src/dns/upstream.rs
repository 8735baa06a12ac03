//! The host's resolvers.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::PORT;
use super::message::Question;
use crate::NetworkError;
use crate::netns::{Netns, Resident, system_error};

/// A question's whole life. A stub resolver gives up after 5 s (resolv.conf(5), `timeout`): it should hear of a failure
/// before that.
const DEADLINE: Duration = Duration::from_secs(4);
/// Resolvers that are asked; resolv.conf(5), MAXNS.
const MOST_RESOLVERS: usize = 3;
/// How long a resolver that did not answer is asked last.
const ILL_FOR: Duration = Duration::from_secs(30);
/// How old a reading of resolv.conf may be.
const FRESH_FOR: Duration = Duration::from_secs(5);
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Bytes of an answer over UDP; what is longer is truncated by the resolver (RFC 6891, 6.2.5).
const UDP_ANSWER: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Asks the host's resolvers, from the namespace that has the way out.
pub(crate) struct Upstream {
    sockets: Resident,
    /// Empty: those of `/etc/resolv.conf`.
    configured: Vec<SocketAddr>,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    /// When each resolver last left a question unanswered.
    ill: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Upstream {
    /// # Errors
    /// No thread can be started in the namespace.
    pub(crate) fn new(netns: &Netns, resolvers: Vec<SocketAddr>) -> Result<Arc<Self>, NetworkError> {
        Ok(Arc::new(Self {
            sockets: Resident::start(netns)?,
            configured: resolvers,
            read: Mutex::new(None),
            ill: Mutex::default(),
        }))
    }

    /// The first answer of any resolver, within [`DEADLINE`]. Each is asked once, and a single one twice: datagrams are
    /// lost.
    pub(super) async fn ask(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        let mut resolvers = self.resolvers().await;
        if let [only] = *resolvers.as_slice() {
            resolvers.push(only);
        }
        let patience = DEADLINE / u32::try_from(resolvers.len().max(1)).unwrap_or(u32::MAX);
        for resolver in resolvers {
            let asked = async {
                match transport {
                    Transport::Udp => self.over_udp(resolver, question).await,
                    Transport::Tcp => self.over_tcp(resolver, question).await,
                }
            };
            match timeout(patience, asked).await {
                Ok(Ok(answer)) => {
                    self.note(resolver, true);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver failed"),
                Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
            }
            self.note(resolver, false);
        }
        None
    }

    /// A socket for each question: its random port is half of what an off-path forger must guess (RFC 5452, 9.2).
    async fn over_udp(&self, resolver: SocketAddr, question: &Question) -> Result<Vec<u8>, NetworkError> {
        let socket = self.open(resolver, SockType::Datagram).await?;
        let exchange = async {
            let socket = UdpSocket::from_std(socket.into())?;
            socket.connect(resolver).await?;
            socket.send(question.bytes()).await?;
            let mut answer = vec![0; UDP_ANSWER];
            loop {
                let length = socket.recv(&mut answer).await?;
                if question.is_answered_by(answer.get(..length).unwrap_or_default()) {
                    answer.truncate(length);
                    return Ok(answer);
                }
            }
        };
        exchange
            .await
            .map_err(|e| system_error(format!("asking the resolver {resolver}"), e))
    }

    /// A connection for each question: guests do not wait for each other's.
    async fn over_tcp(&self, resolver: SocketAddr, question: &Question) -> Result<Vec<u8>, NetworkError> {
        let socket = self.open(resolver, SockType::Stream).await?;
        let exchange = async {
            let socket = TcpSocket::from_std_stream(socket.into());
            let mut stream = socket.connect(resolver).await?;
            write_message(&mut stream, question.bytes()).await?;
            let length = usize::from(stream.read_u16().await?);
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).await?;
            if !question.is_answered_by(&answer) {
                return Err(io::Error::other("the answer is to another question"));
            }
            Ok(answer)
        };
        exchange
            .await
            .map_err(|e| system_error(format!("asking the resolver {resolver} over TCP"), e))
    }

    async fn open(&self, resolver: SocketAddr, kind: SockType) -> Result<OwnedFd, NetworkError> {
        let family = if resolver.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let opened = self
            .sockets
            .run(move || socket(family, kind, flags, None))
            .await?;
        opened.map_err(|e| system_error(format!("opening a socket for the resolver {resolver}"), e.into()))
    }

    /// Those that answer, then those that lately did not.
    async fn resolvers(&self) -> Vec<SocketAddr> {
        let mut resolvers = if self.configured.is_empty() {
            self.of_resolv_conf(Path::new(RESOLV_CONF)).await
        } else {
            self.configured.clone()
        };
        resolvers.truncate(MOST_RESOLVERS);
        let ill = self.ill.lock().unwrap_or_else(PoisonError::into_inner);
        resolvers.sort_by_key(|resolver| ill.get(resolver).is_some_and(|since| since.elapsed() < ILL_FOR));
        resolvers
    }

    fn note(&self, resolver: SocketAddr, answered: bool) {
        let mut ill = self.ill.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            ill.remove(&resolver);
        } else {
            // Addresses that resolv.conf had once are forgotten with their illness.
            ill.retain(|_, since| since.elapsed() < ILL_FOR);
            ill.insert(resolver, Instant::now());
        }
    }

    /// Read again when the last reading is old, by one question; the others go on with what is known.
    async fn of_resolv_conf(&self, path: &Path) -> Vec<SocketAddr> {
        {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, resolvers)) = &mut *read {
                if at.elapsed() < FRESH_FOR {
                    return resolvers.clone();
                }
                *at = Instant::now();
            }
        }
        let resolvers = match tokio::fs::read_to_string(path).await {
            Ok(text) => nameservers(&text),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "reading the host's resolvers");
                Vec::new()
            }
        };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), resolvers.clone()));
        resolvers
    }
}

/// RFC 1035, 4.2.2: two bytes of length before the message. One write, so that it is one segment.
pub(super) async fn write_message(stream: &mut tokio::net::TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => address.parse().ok(),
            _ => None,
        })
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_libc_does() {
        let text =
            "# comment\nsearch example.com\nnameserver 10.0.0.2\nnameserver ::1\nnameserver nonsense\n";
        let expected: Vec<SocketAddr> = vec!["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }
}
