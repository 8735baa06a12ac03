//! Connections, and packets that are well-formed and out of place.

use super::*;
use crate::tests::{Case, cases};
use crate::virtio::status::NEEDS_RESET;

pub const CASES: &[Case] = cases![
    echoes,
    carries_much_both_ways,
    ends_in_order,
    where_nobody_listens_a_request_is_reset,
    packets_of_no_connection_are_reset,
    other_types_are_reset,
    other_context_ids_are_ignored,
    what_does_not_belong_into_a_connection_resets_it,
    without_credit_nothing_is_sent,
    wild_credit_harms_nobody,
    more_than_there_is_credit_for_is_reset,
    resets_that_are_not_taken_are_bounded,
    connections_are_bounded,
    survives_resets_under_load,
];

fn echoes(device: &Device) -> Outcome {
    works(device)
}

fn carries_much_both_ways(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    link.connect(ECHO)?;
    let mut gone = 0;
    for len in [1, 43, 4000, MAX_DATA, 1000, MAX_DATA, 7] {
        link.echo(len, gone)?;
        gone += len;
    }
    Ok(())
}

fn ends_in_order(device: &Device) -> Outcome {
    const BOTH: u32 = 3;
    let mut link = Link::start(device)?;
    for _ in 0..20 {
        link.connect(ECHO)?;
        link.echo(10, 0)?;
        let header = link.header(ECHO, op::SHUTDOWN);
        link.send(Header {
            flags: BOTH,
            ..header
        })?;
        link.expect(ECHO, op::RST, "after a shutdown")?;
    }
    Ok(())
}

fn where_nobody_listens_a_request_is_reset(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    for port in [NOBODY, 0, 0x8000_0000, u32::MAX] {
        link.send(link.header(port, op::REQUEST))?;
        link.expect(port, op::RST, "nobody there")?;
    }
    link.connect(ECHO)?;
    link.echo(100, 0)
}

fn packets_of_no_connection_are_reset(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    for op in [
        op::RESPONSE,
        op::SHUTDOWN,
        op::RW,
        op::CREDIT_UPDATE,
        op::CREDIT_REQUEST,
        0,
        8,
        0xffff,
    ] {
        link.send(link.header(ECHO, op))?;
        link.expect(ECHO, op::RST, "no connection")?;
    }
    // Resets are not answered by resets: nothing comes before the answer to the request.
    link.send(link.header(ECHO, op::RST))?;
    link.connect(ECHO)?;
    link.echo(100, 0)
}

fn other_types_are_reset(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    for kind in [0, 2, 0xffff] {
        let header = link.header(ECHO, op::REQUEST);
        link.send(Header { kind, ..header })?;
        let (reset, _) = link.expect(ECHO, op::RST, "another type")?;
        same!(reset.kind, kind, "the reset's type");
    }
    Ok(())
}

fn other_context_ids_are_ignored(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    let header = link.header(ECHO, op::REQUEST);
    for (src_cid, dst_cid) in [
        (link.cid + 1, HOST_CID),
        (HOST_CID, HOST_CID),
        (u64::MAX, HOST_CID),
        (link.cid, 1),
        (link.cid, link.cid),
        (link.cid, HOST_CID | 1 << 32),
    ] {
        link.send(Header {
            src_cid,
            dst_cid,
            ..header
        })?;
    }
    // Nothing comes before the answer to this one.
    link.connect(ECHO)?;
    link.echo(100, 0)
}

fn what_does_not_belong_into_a_connection_resets_it(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    for op in [op::REQUEST, op::RESPONSE, 0, 8, 0xffff] {
        link.connect(ECHO)?;
        link.send(link.header(ECHO, op))?;
        link.expect(ECHO, op::RST, "out of place")?;
    }
    link.connect(ECHO)?;
    link.echo(100, 0)
}

fn without_credit_nothing_is_sent(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    let header = Header {
        buf_alloc: 0,
        ..link.header(ECHO, op::REQUEST)
    };
    link.send(header)?;
    link.expect(ECHO, op::RESPONSE, "connecting")?;
    for at in 0..5 {
        cpu::write(link.data() + at, pattern(at as u32));
    }
    link.send(Header {
        op: op::RW,
        len: 5,
        ..header
    })?;
    link.expect(ECHO, op::CREDIT_REQUEST, "without credit")?;
    link.send(Header {
        op: op::CREDIT_UPDATE,
        buf_alloc: 1,
        ..header
    })?;
    let (first, _) = link.expect(ECHO, op::RW, "credit for a byte")?;
    same!(first.len, 1, "bytes for a credit of one");
    link.send(Header {
        op: op::CREDIT_UPDATE,
        buf_alloc: 100,
        fwd_cnt: 1,
        ..header
    })?;
    loop {
        let (header, _) = link.receive("credit for the rest")?;
        if header.op == op::RW {
            same!(header.len, 4, "the rest");
            return Ok(());
        }
        same!(header.op, op::CREDIT_REQUEST, "what comes meanwhile");
    }
}

fn wild_credit_harms_nobody(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    link.connect(ECHO)?;
    for (buf_alloc, fwd_cnt) in [
        (u32::MAX, 0),
        (u32::MAX, u32::MAX),
        (1, 0x8000_0000),
        (0, 1),
        (u32::MAX, 0x7fff_ffff),
    ] {
        let header = link.header(ECHO, op::RW);
        link.send(Header {
            len: 100,
            buf_alloc,
            fwd_cnt,
            ..header
        })?;
        let update = link.header(ECHO, op::CREDIT_REQUEST);
        link.send(Header {
            buf_alloc,
            fwd_cnt,
            ..update
        })?;
    }
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    works(device)
}

/// A host program that does not read: what the guest sends regardless ends in a reset, soon.
fn more_than_there_is_credit_for_is_reset(device: &Device) -> Outcome {
    /// What the device promises, what the socket between takes, and some more.
    const SOON: u32 = 2 << 20;
    let mut link = Link::start(device)?;
    link.connect(DEAF)?;
    let mut sent = 0;
    let header = link.header(DEAF, op::RW);
    loop {
        link.send(Header {
            len: MAX_DATA,
            ..header
        })?;
        sent += MAX_DATA;
        ensure!(sent <= SOON, "{sent} bytes are taken without credit");
        match link.take()? {
            Some((Header { op: op::RST, .. }, _)) => break,
            Some((header, _)) => same!(header.op, op::CREDIT_UPDATE, "what comes meanwhile"),
            None => {}
        }
    }
    link.send(Header {
        len: MAX_DATA,
        ..header
    })?;
    link.expect(DEAF, op::RST, "after the end")?;
    works(device)
}

/// A guest that takes no packets is not owed more and more of them.
fn resets_that_are_not_taken_are_bounded(device: &Device) -> Outcome {
    const MANY: u16 = 1000;
    /// What the device keeps, and what it took before it looked.
    const MOST: u16 = 256 + 128;
    let mut link = Link::start_deaf(device)?;
    link.header(NOBODY, op::RW).put(link.packet);
    link.tx.chain(0, &[out(link.packet, HEADER_LEN)]);
    let (mut offered, mut answered) = (0, 0);
    // As long as it takes them.
    while offered < MANY {
        for _ in 0..64 {
            link.tx.offer(0);
        }
        link.tx.kick();
        offered += 64;
        let all = cpu::wait_for(0, || link.tx.used_index() == offered);
        if !all {
            break;
        }
    }
    cpu::sleep(2);
    let taken = link.tx.used_index();
    ensure!(taken <= MOST, "{taken} resets are kept");
    link.listen(BUFFER_LEN);
    while answered < offered {
        let (header, _) = link.receive("what was owed")?;
        same!(header.op, op::RST, "what was owed");
        answered += 1;
    }
    same!(
        link.tx.used_index(),
        offered,
        "packets that were taken in the end"
    );
    Ok(())
}

fn connections_are_bounded(device: &Device) -> Outcome {
    const MANY: u32 = 700;
    const MOST: u32 = 512;
    let mut link = Link::start(device)?;
    let (mut accepted, mut refused) = (0, 0);
    for nth in 0..MANY {
        let header = link.header(DEAF, op::REQUEST);
        link.send(Header {
            src_port: PORT + nth,
            ..header
        })?;
        match link.receive("a connection more")?.0.op {
            op::RESPONSE => accepted += 1,
            op::RST => refused += 1,
            op => ensure!(false, "operation {op} answers a request"),
        }
    }
    ensure!(
        accepted <= MOST && refused >= MANY - MOST,
        "{accepted} connections at once"
    );
    ensure!(accepted > 0, "there is no connection at all");
    works(device)
}

fn survives_resets_under_load(device: &Device) -> Outcome {
    for round in 0..20u32 {
        crate::memory::free_all();
        let mut link = Link::start(device)?;
        link.connect(ECHO)?;
        let header = link.header(ECHO, op::RW);
        Header { len: 1000, ..header }.put(link.packet);
        for nth in 0..32 {
            link.tx.chain(nth, &[out(link.packet, HEADER_LEN + 1000)]);
            link.tx.offer(nth);
        }
        link.tx.kick();
        for _ in 0..round * 1000 {
            core::hint::spin_loop();
        }
        device.reset()?;
        let used = (link.rx.used_index(), link.tx.used_index());
        cpu::sleep(1);
        same!(
            (link.rx.used_index(), link.tx.used_index()),
            used,
            "used indices after the reset"
        );
    }
    works(device)
}
