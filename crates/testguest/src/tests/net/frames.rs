//! Ethernet frames to the host, and from it.

pub const HOST: [u8; 4] = [10, 0, 0, 1];
pub const GUEST: [u8; 4] = [10, 0, 0, 2];

const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
pub const PING_OVERHEAD: usize = ETHERNET_LEN + IP_LEN + ICMP_LEN;
/// A whole frame at most, with an MTU of 1500.
pub const MAX_FRAME: usize = ETHERNET_LEN + 1500;

const ARP_LEN: usize = 42;
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ICMP: u8 = 1;
const TCP: u8 = 6;
pub const TCP_LEN: usize = 20;
/// Before a TCP segment's data.
pub const TCP_HEADERS: usize = ETHERNET_LEN + IP_LEN + TCP_LEN;
/// Where ICMP's and TCP's own headers begin, and where in them the checksum is.
pub const TRANSPORT: u16 = (ETHERNET_LEN + IP_LEN) as u16;
pub const ICMP_CHECKSUM: u16 = 2;
pub const TCP_CHECKSUM: u16 = 16;
const ACKNOWLEDGES: u8 = 0x10;
const RESETS: u8 = 4;
const ECHO_REQUEST: u8 = 8;

/// Who has [`HOST`], tell [`GUEST`].
pub fn arp_request(mac: &[u8; 6]) -> [u8; ARP_LEN] {
    let mut frame = [0; ARP_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(mac);
    frame[12..14].copy_from_slice(&[8, 6]);
    frame[14..22].copy_from_slice(&ARP_REQUEST);
    frame[22..28].copy_from_slice(mac);
    frame[28..32].copy_from_slice(&GUEST);
    frame[38..42].copy_from_slice(&HOST);
    frame
}

pub fn is_arp_reply(frame: &[u8], mac: &[u8; 6]) -> bool {
    frame.len() >= ARP_LEN
        && frame[..6] == *mac
        && frame[12..14] == [8, 6]
        && frame[20..22] == [0, 2]
        && frame[28..32] == HOST
}

/// An echo request that fills `frame`, numbered `sequence`.
pub fn ping(frame: &mut [u8], mac: &[u8; 6], host_mac: &[u8; 6], sequence: u16) {
    let icmp = ip(frame, mac, host_mac, ICMP);
    icmp[..ICMP_LEN].copy_from_slice(&[ECHO_REQUEST, 0, 0, 0, 0x48, 0x45, 0, 0]);
    icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The headers of a packet that fills `frame`; returns what is behind them, full of 0x5a.
fn ip<'a>(frame: &'a mut [u8], mac: &[u8; 6], host_mac: &[u8; 6], protocol: u8) -> &'a mut [u8] {
    frame.fill(0x5a);
    let ip_len = (frame.len() - ETHERNET_LEN) as u16;
    frame[..6].copy_from_slice(host_mac);
    frame[6..12].copy_from_slice(mac);
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, rest) = frame[ETHERNET_LEN..].split_at_mut(IP_LEN);
    ip.fill(0);
    (ip[0], ip[8], ip[9]) = (0x45, 64, protocol);
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[12..16].copy_from_slice(&GUEST);
    ip[16..20].copy_from_slice(&HOST);
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    rest
}

/// A segment of a connection that the host does not know, whose checksum is that of the pseudo header alone.
pub fn tcp(frame: &mut [u8], mac: &[u8; 6], host_mac: &[u8; 6]) {
    let tcp = ip(frame, mac, host_mac, TCP);
    let len = tcp.len() as u16;
    tcp[..TCP_LEN].fill(0);
    tcp[..4].copy_from_slice(&[0x1b, 0x58, 0x1b, 0x59]);
    (tcp[12], tcp[13]) = (5 << 4, ACKNOWLEDGES);
    let mut pseudo = [0; 12];
    pseudo[..4].copy_from_slice(&GUEST);
    pseudo[4..8].copy_from_slice(&HOST);
    pseudo[9] = TCP;
    pseudo[10..].copy_from_slice(&len.to_be_bytes());
    let sum = !checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// The host's answer to [`tcp`].
pub fn is_tcp_reset(frame: &[u8]) -> bool {
    frame.len() >= TCP_HEADERS
        && frame[12..14] == [8, 0]
        && frame[23] == TCP
        && frame[26..30] == HOST
        && frame[34..38] == [0x1b, 0x59, 0x1b, 0x58]
        && frame[47] & RESETS != 0
}

/// The sequence number of an echo reply to us.
pub fn pong(frame: &[u8]) -> Option<u16> {
    let ours = frame.len() >= PING_OVERHEAD
        && frame[12..14] == [8, 0]
        && frame[23] == ICMP
        && frame[34] == 0
        && frame[26..30] == HOST;
    ours.then(|| u16::from_be_bytes([frame[40], frame[41]]))
}

/// The Internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
