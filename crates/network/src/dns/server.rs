//! The sockets of one interface, and the conversations on them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::upstream::{Transport, write_message};
use super::{Dns, PORT, Step};
use crate::share::{Service, Share};
use crate::sockets::{self, Datagrams, PAUSE};

/// Bytes of a question. A name has 255 at most (RFC 1035, 2.3.4), options some more.
const MAX_QUESTION: usize = 4096;
/// How long a connection may be silent before its next question is whole, and how long it may take to read an answer
/// (RFC 7766, 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(5);
/// A connection's whole life.
const CONNECTION: Duration = Duration::from_secs(60);

/// One interface's sockets, in its VPC's namespace.
pub(crate) struct Sockets {
    udp: Vec<OwnedFd>,
    tcp: Vec<OwnedFd>,
}

impl Sockets {
    /// In the calling thread's namespace, on the TAP, which must exist.
    ///
    /// # Errors
    /// An address is not the namespace's, or another process serves there.
    pub(crate) fn open(tap: &str, addresses: &[Ipv4Addr]) -> io::Result<Self> {
        let at = addresses.iter().map(|address| SocketAddrV4::new(*address, PORT));
        Ok(Self {
            udp: at
                .clone()
                .map(|at| sockets::udp(tap, at))
                .collect::<Result<_, _>>()?,
            tcp: at.map(|at| sockets::tcp(tap, at)).collect::<Result<_, _>>()?,
        })
    }
}

/// Answers for as long as it is polled. Must be called in a runtime's context.
///
/// # Errors
/// The sockets cannot be registered with the runtime.
pub(crate) async fn serve(sockets: Sockets, share: Arc<Share>, dns: Arc<Dns>) -> io::Result<()> {
    let udp = sockets.udp.into_iter().map(|socket| {
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        Ok(serve_udp(socket, share.clone(), dns.clone()))
    });
    let tcp = sockets.tcp.into_iter().map(|listener| {
        let listener = TcpListener::from_std(listener.into())?;
        Ok(serve_tcp(listener, share.clone(), dns.clone()))
    });
    // In one task, so that the listeners are closed when it has ended.
    tokio::join!(
        join_all(udp.collect::<io::Result<Vec<_>>>()?),
        join_all(tcp.collect::<io::Result<Vec<_>>>()?)
    );
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, share: Arc<Share>, dns: Arc<Dns>) {
    let mut datagrams = Datagrams::new(&socket, &share, Service::Dns);
    let mut buffer = [0; MAX_QUESTION];
    // Questions end with their server.
    let mut questions = JoinSet::new();
    loop {
        while questions.try_join_next().is_some() {}
        let (length, client) = match datagrams.next(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a DNS question");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match dns.step(buffer.get(..length).unwrap_or_default()) {
            Step::Ignore => {}
            Step::Answer(answer) => {
                let _ = socket.send_to(&answer, client).await;
            }
            Step::Relay(question) => {
                let Some(permit) = share.question() else {
                    continue;
                };
                let (socket, dns) = (socket.clone(), dns.clone());
                questions.spawn(async move {
                    let answer = dns.relay(&question, Transport::Udp).await;
                    let _ = socket.send_to(&answer, client).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, share: Arc<Share>, dns: Arc<Dns>) {
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !share.admit(Service::Dns) {
            drop(stream);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        // A client without room is told at once.
        let Some(permit) = share.connection(Service::Dns) else {
            continue;
        };
        let (share, dns) = (share.clone(), dns.clone());
        conversations.spawn(async move {
            if let Ok(Err(error)) = timeout(CONNECTION, converse(stream, &share, &dns)).await {
                tracing::debug!(%error, "a DNS connection ended");
            }
            drop(permit);
        });
    }
}

/// One question after the other, until the client has no more or is over its share.
async fn converse(mut stream: TcpStream, share: &Share, dns: &Dns) -> io::Result<()> {
    loop {
        let message = timeout(IDLE, read_question(&mut stream)).await??;
        if !share.admit(Service::Dns) {
            return Ok(());
        }
        let answer = match dns.step(&message) {
            Step::Ignore => return Ok(()),
            Step::Answer(answer) => answer,
            Step::Relay(question) => {
                let Some(_permit) = share.question() else {
                    return Ok(());
                };
                dns.relay(&question, Transport::Tcp).await
            }
        };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUESTION {
        return Err(io::Error::other(format!("a question of {length} bytes")));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
