use std::io::{BufRead, BufReader};

use super::*;

struct Bench {
    server: Server,
    epoll: Epoll,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let epoll = Epoll::new().unwrap();
        let server = Server::new(UnixListener::bind(&path).unwrap(), &epoll).unwrap();
        Self {
            server,
            epoll,
            path,
            _dir: dir,
        }
    }

    fn connect(&mut self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        self.turn();
        stream
    }

    /// Handles what is ready, answering each request with Ok.
    fn turn(&mut self) {
        let mut ready = [EpollEvent::default(); 8];
        let count = self.epoll.wait(1000, &mut ready).unwrap();
        for event in &ready[..count] {
            assert!(
                self.server
                    .handle(event.data() as RawFd, &self.epoll, |_| Reply::Ok)
            );
        }
    }
}

fn line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn requests_in_pieces_are_answered_and_events_announced() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.write_all(b"\"sta").unwrap();
    bench.turn();
    client.write_all(b"tus\"\n").unwrap();
    bench.turn();
    assert_eq!(line(&client), "{\"reply\":\"ok\"}\n");
    client.write_all(b"nonsense\n").unwrap();
    bench.turn();
    assert!(line(&client).contains("not a request"));
    bench.server.announce(&Event::Reset { boots: 2 }, &bench.epoll);
    assert_eq!(line(&client), "{\"event\":{\"reset\":{\"boots\":2}}}\n");
}

#[test]
fn babblers_and_the_deaf_are_dropped() {
    let mut bench = Bench::new();
    let mut babbler = bench.connect();
    babbler.write_all(&[b'x'; LINE_LIMIT]).unwrap();
    bench.turn();
    assert!(bench.server.clients.is_empty());
    let _deaf = bench.connect();
    for boots in 0..100_000 {
        bench.server.announce(&Event::Reset { boots }, &bench.epoll);
    }
    assert!(bench.server.clients.is_empty());
}

#[test]
fn the_number_of_clients_is_bounded() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..CLIENT_LIMIT + 3).map(|_| bench.connect()).collect();
    assert_eq!(bench.server.clients.len(), CLIENT_LIMIT);
    drop(clients);
}
