//! Several queue pairs, of which the control queue says how many are in use. Virtio 1.2, section 5.1.6.5.

use super::*;
use crate::println;
use crate::report::End;
use crate::tests::{Case, cases};
use crate::virtio::CONFIG_INTERRUPT;
use crate::virtio::status::NEEDS_RESET;

pub const CASES: &[Case] = cases![
    two_pairs_carry_packets,
    wrong_numbers_of_pairs_are_refused,
    unknown_commands_are_refused,
    a_command_without_room_for_the_answer,
    a_command_that_is_cut_short,
    pairs_change_under_load,
];

const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
/// The queue behind two pairs.
const CONTROL: usize = 4;
const SET_PAIRS: [u8; 2] = [4, 0];
const OK: u8 = 0;
const ERR: u8 = 1;

struct Pairs {
    links: [Link; 2],
    control: Ring,
    command: u64,
}

impl Pairs {
    fn start(device: &Device) -> Outcome<Self> {
        if device.offered() & MQ == 0 {
            return Err(End::Absent("one pair only"));
        }
        same!(device.config::<u16>(8), 2, "pairs");
        let [rx0, tx0, rx1, tx1, control]: [Ring; CONTROL + 1] =
            device.start(PLAIN | CTRL_VQ | MQ, RX_BUFFERS)?;
        let links = [Link::on(device, rx0, tx0), Link::on(device, rx1, tx1)];
        links.iter().for_each(Link::listen);
        Ok(Self {
            links,
            control,
            command: allocate(4096),
        })
    }

    /// Gives a command in two pieces, and returns its answer.
    fn command(&mut self, command: &[u8]) -> Outcome<u8> {
        let answer = self.command + 2048;
        copy_in(self.command, command);
        cpu::write(answer, 0xffu8);
        let buffers = [
            out(self.command, 1),
            out(self.command + 1, command.len() as u32 - 1),
            into(answer, 1),
        ];
        same!(
            self.control.request("a command", &buffers)?,
            1,
            "bytes of the answer"
        );
        Ok(read(answer))
    }

    fn set(&mut self, pairs: u16) -> Outcome<u8> {
        let [low, high] = pairs.to_le_bytes();
        self.command(&[SET_PAIRS[0], SET_PAIRS[1], low, high])
    }

    /// Asks for the host's address by one pair; the answer may come by any.
    fn exchange_arp(&mut self, by: usize) -> Outcome {
        let mac = self.links[0].mac;
        let request = frames::arp_request(&mac);
        self.links[by].send(&request)?;
        let is_it = |frame: &[u8]| frames::is_arp_reply(frame, &mac);
        loop {
            let [first, second] = &mut self.links;
            let came = cpu::wait_for(PATIENCE, || first.rx.is_used() || second.rx.is_used());
            ensure!(came, "no answer to pair {by}");
            if first.take(&is_it)?.is_some() || second.take(&is_it)?.is_some() {
                return Ok(());
            }
        }
    }
}

fn two_pairs_carry_packets(device: &Device) -> Outcome {
    let mut pairs = Pairs::start(device)?;
    pairs.exchange_arp(0)?;
    for number in [2, 1, 2] {
        same!(pairs.set(number)?, OK, "{number} pairs");
        for by in 0..usize::from(number) {
            pairs.exchange_arp(by)?;
        }
    }
    works(device)
}

/// The host deletes the TAP and gives another one, whose address is another, when the console tells it to.
pub fn go_on_with_another_tap(device: &Device, rounds: u32) -> Outcome {
    /// Of a hundredth of a second each, and longer than the host takes.
    const TRIES: u32 = 1000;
    let mut pairs = Pairs::start(device)?;
    let mut host = pairs.links[0].host_address()?;
    same!(pairs.set(2)?, OK, "two pairs");
    for round in 0..rounds {
        println!("tap: replace {round}");
        let (mac, before) = (pairs.links[0].mac, host);
        let request = frames::arp_request(&mac);
        let answered = Cell::new(host);
        let is_it = |frame: &[u8]| {
            let is_it = frames::is_arp_reply(frame, &mac);
            if is_it {
                answered.set(core::array::from_fn(|nth| frame[6 + nth]));
            }
            is_it
        };
        for _ in 0..TRIES {
            // What is sent meanwhile is lost, as on a wire, and does not come back late.
            for link in &mut pairs.links {
                link.send(&request)?;
                while link.rx.is_used() {
                    link.take(&is_it)?;
                }
            }
            if answered.get() != before {
                break;
            }
            cpu::sleep(1);
        }
        host = answered.get();
        ensure!(host != before, "no other TAP came in round {round}");
        // As many pairs are in use as were.
        pairs.exchange_arp(0)?;
        pairs.exchange_arp(1)?;
        same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    }
    Ok(())
}

fn wrong_numbers_of_pairs_are_refused(device: &Device) -> Outcome {
    let mut pairs = Pairs::start(device)?;
    for number in [0, 3, 8, 0x100, 0x8000, 0xffff] {
        same!(pairs.set(number)?, ERR, "{number} pairs");
    }
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    pairs.exchange_arp(0)?;
    same!(pairs.set(2)?, OK, "two pairs");
    pairs.exchange_arp(1)
}

fn unknown_commands_are_refused(device: &Device) -> Outcome {
    let mut pairs = Pairs::start(device)?;
    for class in [0, 1, 2, 3, 5, 6, 0xff] {
        same!(pairs.command(&[class, 0, 1, 0])?, ERR, "class {class}");
    }
    for command in [1, 2, 3, 0xff] {
        same!(
            pairs.command(&[SET_PAIRS[0], command, 1, 0])?,
            ERR,
            "command {command}"
        );
    }
    // Behind the command there may be more.
    same!(
        pairs.command(&[SET_PAIRS[0], SET_PAIRS[1], 2, 0, 9, 9])?,
        OK,
        "a long command"
    );
    works(device)
}

fn breaks(device: &Device, buffers: fn(u64) -> [Buffer; 2]) -> Outcome {
    let pairs = Pairs::start(device)?;
    copy_in(pairs.command, &[SET_PAIRS[0], SET_PAIRS[1], 2, 0]);
    let before = device.interrupts(CONFIG_INTERRUPT);
    pairs.control.chain(0, &buffers(pairs.command));
    pairs.control.offer(0);
    pairs.control.kick();
    device.wait_needs_reset(before)?;
    same!(pairs.control.used_index(), 0, "used index");
    works(device)
}

fn a_command_without_room_for_the_answer(device: &Device) -> Outcome {
    breaks(device, |at| [out(at, 2), out(at + 2, 2)])
}

fn a_command_that_is_cut_short(device: &Device) -> Outcome {
    for len in [1, 2, 3] {
        let buffers: fn(u64) -> [Buffer; 2] = match len {
            1 => |at| [out(at, 1), into(at + 8, 1)],
            2 => |at| [out(at, 2), into(at + 8, 1)],
            _ => |at| [out(at, 3), into(at + 8, 1)],
        };
        breaks(device, buffers)?;
    }
    Ok(())
}

fn pairs_change_under_load(device: &Device) -> Outcome {
    let mut pairs = Pairs::start(device)?;
    let request = frames::arp_request(&pairs.links[0].mac);
    for round in 0..50 {
        for link in &mut pairs.links {
            copy_in(link.tx_buffer + u64::from(HEADER_LEN), &request);
            for nth in 0..8 {
                let whole = out(link.tx_buffer, HEADER_LEN + request.len() as u32);
                link.tx.chain(nth, &[whole]);
                link.tx.offer(nth);
            }
            link.tx.kick();
        }
        same!(pairs.set(1 + round % 2)?, OK, "round {round}");
        for link in &mut pairs.links {
            for _ in 0..8 {
                link.tx.wait("sending")?;
            }
            while link.take(&|_| true)?.is_some() {}
        }
    }
    works(device)
}
