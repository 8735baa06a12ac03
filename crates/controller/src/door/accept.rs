//! Accepts connections. Each has a deadline until it has said what it speaks, and a place among those of its kind
//! and its peer; where there is none, the oldest makes room. Agents' connections have places of their own: whatever
//! callers do, and whoever has no certificate, agents get in.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::{CallerStream, Connection, Protocol};
use super::files::Shares;
use super::places::{Limits, Place, Places};
use super::subscriber::subscriber;
use crate::pki::{CallersTls, HostCertificate};

/// From accept(2) to the end of the HTTP/2 preface, or the first bytes of HTTP/1.1; a TLS handshake included.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What may be said without a certificate is said by then.
const GUEST_LIFETIME: Duration = Duration::from_secs(60);
/// After an error of accept(2), such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections of one host: its session, and images that it fetches.
const PER_HOST: usize = 16;

/// Connections as tonic takes them.
pub type Incoming<S> = ReceiverStream<io::Result<Connection<S>>>;
type Outgoing<S> = mpsc::Sender<io::Result<Connection<S>>>;

/// Serves the API's socket. A peer is a user.
pub fn callers(listener: UnixListener, shares: &Shares) -> Incoming<CallerStream> {
    let (ready, incoming) = mpsc::channel(1);
    let waiting = Places::new(shares.callers_waiting);
    let connected = Places::new(shares.callers);
    tokio::spawn(async move {
        while let Some((stream, _)) = next(&ready, || listener.accept()).await {
            let Ok(caller) = CallerStream::new(stream) else {
                continue;
            };
            let uid = caller.uid();
            let place = waiting.take_anyway(uid);
            let (ready, connected) = (ready.clone(), Arc::clone(&connected));
            tokio::spawn(shake(place, async move {
                let connection = Connection::begin(caller).await?;
                let place = connected.take_anyway(uid);
                hand_over(&ready, connection.keep_until(place.evicted(), place)).await;
                Ok(())
            }));
        }
    });
    ReceiverStream::new(incoming)
}

/// Who is at the other end of an agent's connection, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Peer {
    Address(IpAddr),
    /// By a certificate that was verified.
    Host(String),
}

/// Serves the agents' port. Without a certificate a peer is an address, with one it is a host.
pub fn agents(listener: TcpListener, tls: ServerConfig, shares: &Shares) -> Incoming<TlsStream<TcpStream>> {
    let (ready, incoming) = mpsc::channel(1);
    let tls = TlsAcceptor::from(Arc::new(tls));
    let waiting = Places::new(shares.agents_waiting);
    let guests = Places::new(shares.guests);
    let hosts = Places::new(Limits {
        total: shares.hosts,
        per_peer: PER_HOST,
    });
    tokio::spawn(async move {
        while let Some((stream, address)) = next(&ready, || listener.accept()).await {
            let address = Peer::Address(subscriber(address.ip()));
            let place = waiting.take_anyway(address.clone());
            let (ready, tls) = (ready.clone(), tls.clone());
            let (guests, hosts) = (Arc::clone(&guests), Arc::clone(&hosts));
            tokio::spawn(shake(place, async move {
                stream.set_nodelay(true)?;
                let connection = Connection::begin(tls.accept(stream).await?).await?;
                let leaf = connection.stream().get_ref().1.peer_certificates();
                let leaf = leaf.and_then(|chain| chain.first());
                let host = leaf
                    .and_then(HostCertificate::read)
                    .map(|certificate| certificate.host_id);
                let connection = match host {
                    Some(host) => {
                        let place = hosts.take_anyway(Peer::Host(host));
                        connection.keep_until(place.evicted(), place)
                    }
                    None => {
                        let place = guests.take_anyway(address);
                        let evicted = place.evicted();
                        let until = async move {
                            let _ = tokio::time::timeout(GUEST_LIFETIME, evicted).await;
                        };
                        connection.keep_until(until, place)
                    }
                };
                hand_over(&ready, connection).await;
                Ok(())
            }));
        }
    });
    ReceiverStream::new(incoming)
}

/// A connection to the port of signed requests, in plain text or not.
pub struct Signer {
    pub connection: Connection<Box<dyn Stream>>,
    pub speaks: Protocol,
    pub address: SocketAddr,
    /// Whether TLS is around it.
    pub is_secure: bool,
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The first byte of a TLS handshake (RFC 8446, section 5.1), which no request in plain text has.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Serves the port of signed requests. A peer is an address.
pub fn signers(listener: TcpListener, tls: CallersTls, shares: &Shares) -> mpsc::Receiver<Signer> {
    let (ready, incoming) = mpsc::channel(1);
    let waiting = Places::new(shares.signers_waiting);
    let connected = Places::new(shares.signers);
    let tls = Arc::new(tls);
    tokio::spawn(async move {
        while let Some((stream, address)) = next(&ready, || listener.accept()).await {
            let peer = subscriber(address.ip());
            let place = waiting.take_anyway(peer);
            let (ready, tls, connected) = (ready.clone(), Arc::clone(&tls), Arc::clone(&connected));
            tokio::spawn(shake(place, async move {
                stream.set_nodelay(true)?;
                let mut first = [0];
                let is_secure = stream.peek(&mut first).await? == 1 && first == [HANDSHAKE_RECORD];
                let stream: Box<dyn Stream> = match is_secure {
                    true => {
                        let acceptor = tls.acceptor(stream.local_addr()?.ip());
                        Box::new(acceptor.accept(stream).await?)
                    }
                    false => Box::new(stream),
                };
                let (speaks, connection) = Connection::hear(stream).await?;
                let place = connected.take_anyway(peer);
                let signer = Signer {
                    connection: connection.keep_until(place.evicted(), place),
                    speaks,
                    address,
                    is_secure,
                };
                // Nobody takes it when the process ends.
                let _ = ready.send(signer).await;
                Ok(())
            }));
        }
    });
    incoming
}

/// The next connection; `None` when nobody takes them any more.
async fn next<R, T, F>(ready: &mpsc::Sender<R>, accept: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = ready.closed() => return None,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Runs a connection's beginning until it is done, its time is over, or its place is needed.
async fn shake<P>(place: Place<P>, beginning: impl Future<Output = io::Result<()>>)
where
    P: Eq + std::hash::Hash + Clone,
{
    tokio::select! {
        began = tokio::time::timeout(HANDSHAKE, beginning) => match began {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection did not begin"),
            Err(_) => tracing::debug!("a connection did not begin in time"),
        },
        () = place.evicted() => tracing::debug!("a connection that did not begin made room"),
    }
}

async fn hand_over<S>(ready: &Outgoing<S>, connection: Connection<S>) {
    // Nobody takes it when the process ends.
    let _ = ready.send(Ok(connection)).await;
}
