//! DNS: a relay from the VPC's resolver addresses to the host's resolvers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::NetworkError;
use crate::netns::{Netns, system_error};

const PORT: u16 = 53;
/// Questions of one VPC that wait for answers; more are dropped, and asked again by their clients.
const MAX_IN_FLIGHT: usize = 256;
const UDP_TIMEOUT: Duration = Duration::from_secs(3);
const TCP_TIMEOUT: Duration = Duration::from_secs(15);
/// EDNS answers are seldom longer; more is truncated by the resolver.
const MAX_MESSAGE: usize = 4096;
/// The header, RFC 1035, 4.1.1.
const MIN_MESSAGE: usize = 12;

/// Where questions go, and from which namespace.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) netns: Netns,
    /// Empty: those of `/etc/resolv.conf`.
    pub(crate) resolvers: Vec<SocketAddr>,
}

/// Sockets that were opened in the VPC's namespace.
pub(crate) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Sockets {
    /// In the calling thread's namespace, registered with the entered runtime.
    pub(crate) fn open(addresses: &[Ipv4Addr]) -> Result<Self, NetworkError> {
        let open = || -> io::Result<Self> {
            let mut sockets = Self {
                udp: Vec::new(),
                tcp: Vec::new(),
            };
            for address in addresses {
                let udp = std::net::UdpSocket::bind((*address, PORT))?;
                udp.set_nonblocking(true)?;
                sockets.udp.push(UdpSocket::from_std(udp)?);
                let tcp = std::net::TcpListener::bind((*address, PORT))?;
                tcp.set_nonblocking(true)?;
                sockets.tcp.push(TcpListener::from_std(tcp)?);
            }
            Ok(sockets)
        };
        open().map_err(|e| system_error("opening the DNS sockets", e))
    }
}

/// Relays for as long as it is polled.
pub(crate) async fn serve(sockets: Sockets, upstream: Upstream) {
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let udp = sockets
        .udp
        .into_iter()
        .map(|socket| serve_udp(socket, upstream.clone(), in_flight.clone()));
    let tcp = sockets
        .tcp
        .into_iter()
        .map(|listener| serve_tcp(listener, upstream.clone(), in_flight.clone()));
    tokio::join!(futures::future::join_all(udp), futures::future::join_all(tcp));
}

async fn serve_udp(socket: UdpSocket, upstream: Upstream, in_flight: Arc<Semaphore>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; MAX_MESSAGE];
    // Questions end with their server.
    let mut questions = JoinSet::new();
    loop {
        while questions.try_join_next().is_some() {}
        // An error is an ICMP answer to an earlier packet: no reason to end.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(question) = buffer
            .get(..length)
            .filter(|question| question.len() >= MIN_MESSAGE)
        else {
            continue;
        };
        let Ok(permit) = in_flight.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, upstream, question) = (socket.clone(), upstream.clone(), question.to_vec());
        questions.spawn(async move {
            for resolver in upstream.resolvers() {
                if let Ok(Ok(answer)) = timeout(UDP_TIMEOUT, ask(&upstream.netns, resolver, &question)).await
                {
                    let _ = socket.send_to(&answer, client).await;
                    break;
                }
            }
            drop(permit);
        });
    }
}

/// A socket for each question: its random port is half of what an off-path forger must guess.
async fn ask(netns: &Netns, resolver: SocketAddr, question: &[u8]) -> Result<Vec<u8>, NetworkError> {
    let asking = move |e| system_error(format!("asking the resolver {resolver}"), e);
    let socket = netns.run(move || bind_for(resolver).map_err(asking)).await?;
    let exchange = async {
        socket.connect(resolver).await?;
        socket.send(question).await?;
        let mut answer = vec![0; MAX_MESSAGE];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length >= MIN_MESSAGE && answer.get(..2) == question.get(..2) {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    };
    exchange.await.map_err(asking)
}

fn bind_for(resolver: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn serve_tcp(listener: TcpListener, upstream: Upstream, in_flight: Arc<Semaphore>) {
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return;
        };
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(_) => {
                // Out of descriptors, or the client is gone already: let others run first.
                tokio::task::yield_now().await;
                continue;
            }
        };
        let upstream = upstream.clone();
        conversations.spawn(async move {
            let relay = async {
                for resolver in upstream.resolvers() {
                    if let Ok(mut server) = connect(&upstream.netns, resolver).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            };
            let _ = timeout(TCP_TIMEOUT, relay).await;
            drop(permit);
        });
    }
}

async fn connect(netns: &Netns, resolver: SocketAddr) -> Result<TcpStream, NetworkError> {
    let asking = move |e| system_error(format!("connecting to the resolver {resolver}"), e);
    let stream = netns.run(move || {
        let stream = std::net::TcpStream::connect_timeout(&resolver, UDP_TIMEOUT).map_err(asking)?;
        stream.set_nonblocking(true).map_err(asking)?;
        TcpStream::from_std(stream).map_err(asking)
    });
    stream.await
}

impl Upstream {
    fn resolvers(&self) -> Vec<SocketAddr> {
        if !self.resolvers.is_empty() {
            return self.resolvers.clone();
        }
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        nameservers(&text)
    }
}

fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => address.parse::<IpAddr>().ok(),
            _ => None,
        })
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
