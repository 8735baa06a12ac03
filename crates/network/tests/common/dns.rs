//! A stub resolver, and a resolver of the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::inside;

/// What the host's resolver answers for every name.
pub const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

pub fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub fn question(name: &str) -> Vec<u8> {
    message(name, RecordType::A).to_vec().unwrap()
}

/// Asks once over UDP, from the calling thread's namespace.
pub fn ask(server: Ipv4Addr, name: &str, patience: Duration) -> Option<Message> {
    ask_for(server, name, RecordType::A, patience)
}

pub fn ask_for(server: Ipv4Addr, name: &str, kind: RecordType, patience: Duration) -> Option<Message> {
    let question = message(name, kind);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((server, 53)).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let end = Instant::now() + patience;
    let mut buffer = [0; 4096];
    loop {
        let left = end.checked_duration_since(Instant::now())?;
        socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        if answer.metadata.id == question.metadata.id {
            assert_eq!(answer.queries, question.queries);
            return Some(answer);
        }
    }
}

/// Asks once over TCP, from the calling thread's namespace.
pub fn ask_over_tcp(server: Ipv4Addr, name: &str, patience: Duration) -> Option<Message> {
    let address = SocketAddr::from((server, 53));
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let question = question(name);
    let length = u16::try_from(question.len()).unwrap();
    stream
        .write_all(&[&length.to_be_bytes(), question.as_slice()].concat())
        .ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    Some(Message::from_vec(&answer).unwrap())
}

/// A resolver in the namespace, over UDP and TCP: [`ANSWER`] for every name, silence for those that begin with `hold`.
pub fn resolver(netns: &str) -> SocketAddr {
    let (udp, tcp) = inside(netns, || {
        // A port that is free for both.
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                return (udp, tcp);
            }
        }
    });
    let address = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                let _ = udp.send_to(&answer, from);
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question).unwrap();
                    let Some(answer) = answer(&question) else {
                        continue;
                    };
                    let length = u16::try_from(answer.len()).unwrap();
                    let _ = stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat());
                }
            });
        }
    });
    address
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let name = question.queries[0].name().clone();
    if name.to_ascii().starts_with("hold") {
        return None;
    }
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = ResponseCode::NoError;
    answer.queries = question.queries.clone();
    answer.add_answer(Record::from_rdata(name, 60, RData::A(A(ANSWER))));
    answer.to_vec().ok()
}
