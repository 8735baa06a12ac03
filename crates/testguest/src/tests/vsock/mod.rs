//! The socket device. Virtio 1.2, section 5.10.
//!
//! The host has a program that sends back whatever it gets at port 7, and one that accepts and never reads at
//! port 8. Nobody listens at port 9.

pub mod malformed;
pub mod streams;

use crate::memory::allocate;
use crate::report::Outcome;
use crate::virtio::ring::{Ring, into, out};
use crate::virtio::vsock::{HEADER_LEN, HOST_CID, Header, STREAM, op};
use crate::virtio::{Device, PATIENCE, feature};
use crate::{cpu, ensure, same};

const ECHO: u32 = 7;
const DEAF: u32 = 8;
const NOBODY: u32 = 9;
/// The guest's.
const PORT: u32 = 1000;

const RX_BUFFERS: u16 = 16;
const BUFFER_LEN: u32 = 4096;
/// Data of one packet from the guest at most.
const MAX_DATA: u32 = 64 << 10;

struct Link {
    cid: u64,
    rx: Ring,
    tx: Ring,
    rx_buffers: u64,
    /// A header, and data behind it.
    packet: u64,
    /// The buffer that the last packet is in.
    held: Option<u16>,
}

impl Link {
    fn start(device: &Device) -> Outcome<Self> {
        let link = Self::start_deaf(device)?;
        link.listen(BUFFER_LEN);
        Ok(link)
    }

    /// Without buffers to receive into.
    fn start_deaf(device: &Device) -> Outcome<Self> {
        let [rx, tx, _events] = device.start(!feature::EVENT_IDX, 128)?;
        Ok(Self {
            cid: device.config(0),
            rx,
            tx,
            rx_buffers: allocate(u64::from(BUFFER_LEN) * u64::from(RX_BUFFERS)),
            packet: allocate(u64::from(HEADER_LEN + MAX_DATA)),
            held: None,
        })
    }

    /// Offers buffers of `len` bytes.
    fn listen(&self, len: u32) {
        for nth in 0..RX_BUFFERS {
            self.rx.chain(nth, &[into(self.rx_buffer(nth), len)]);
            self.rx.offer(nth);
        }
        self.rx.kick();
    }

    fn rx_buffer(&self, nth: u16) -> u64 {
        self.rx_buffers + u64::from(BUFFER_LEN) * u64::from(nth)
    }

    /// What a guest with much room says.
    fn header(&self, port: u32, op: u16) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: HOST_CID,
            src_port: PORT,
            dst_port: port,
            len: 0,
            kind: STREAM,
            op,
            flags: 0,
            buf_alloc: 1 << 20,
            fwd_cnt: 0,
        }
    }

    /// Sends a packet, with as many bytes behind it as it says.
    fn send(&mut self, header: Header) -> Outcome {
        header.put(self.packet);
        let whole = out(self.packet, HEADER_LEN + header.len);
        same!(
            self.tx.request("a packet", &[whole])?,
            0,
            "bytes written by sending"
        );
        Ok(())
    }

    fn data(&self) -> u64 {
        self.packet + u64::from(HEADER_LEN)
    }

    /// The next packet, if one has come, and where its data is until the next call.
    fn take(&mut self) -> Outcome<Option<(Header, u64)>> {
        if let Some(held) = self.held.take() {
            self.rx.offer(held);
            self.rx.kick();
        }
        let Some((head, len)) = self.rx.take() else {
            return Ok(None);
        };
        self.held = Some(head as u16);
        let at = self.rx_buffer(head as u16);
        let header = Header::get(at);
        same!(
            (header.src_cid, header.dst_cid),
            (HOST_CID, self.cid),
            "context ids"
        );
        same!(len, HEADER_LEN + header.len, "the packet's length");
        Ok(Some((header, at + u64::from(HEADER_LEN))))
    }

    /// Waits for the next packet to [`PORT`] that is no news of credit.
    fn receive(&mut self, what: &str) -> Outcome<(Header, u64)> {
        loop {
            if let Some((header, data)) = self.take()? {
                if header.op != op::CREDIT_UPDATE {
                    return Ok((header, data));
                }
                continue;
            }
            let came = cpu::wait_for(PATIENCE, || self.rx.is_used());
            ensure!(came, "{what}: nothing comes");
        }
    }

    /// Waits for a packet of one kind.
    fn expect(&mut self, port: u32, op: u16, what: &str) -> Outcome<(Header, u64)> {
        let (header, data) = self.receive(what)?;
        same!(
            (header.src_port, header.dst_port, header.op),
            (port, PORT, op),
            "{what}: ports and operation"
        );
        Ok((header, data))
    }

    fn connect(&mut self, port: u32) -> Outcome<Header> {
        self.send(self.header(port, op::REQUEST))?;
        Ok(self.expect(port, op::RESPONSE, "connecting")?.0)
    }

    /// Sends `len` bytes, and waits until all of them have come back. `gone` bytes have before.
    fn echo(&mut self, len: u32, gone: u32) -> Outcome {
        for at in 0..len {
            cpu::write(self.data() + u64::from(at), pattern(gone + at));
        }
        let header = self.header(ECHO, op::RW);
        self.send(Header {
            len,
            fwd_cnt: gone,
            ..header
        })?;
        let mut back = 0;
        while back < len {
            let (header, data) = self.expect(ECHO, op::RW, "an echo")?;
            for at in 0..header.len {
                let byte: u8 = cpu::read(data + u64::from(at));
                same!(byte, pattern(gone + back + at), "byte {} of an echo", back + at);
            }
            back += header.len;
        }
        same!(back, len, "bytes that came back");
        Ok(())
    }
}

fn pattern(at: u32) -> u8 {
    (at % 251) as u8
}

pub fn works(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    link.connect(ECHO)?;
    link.echo(100, 0)
}
