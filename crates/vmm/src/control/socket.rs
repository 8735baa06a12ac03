//! Bytes and descriptors over a Unix stream socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors that one message may carry.
pub const DESCRIPTOR_LIMIT: usize = 64;

const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTOR_LIMIT));

/// Sends `bytes` with `descriptors`, and says how many bytes it has sent; the descriptors went with the first.
///
/// # Errors
/// `InvalidInput`: more descriptors than [`DESCRIPTOR_LIMIT`]. Others are the socket's.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = descriptors.len() <= DESCRIPTOR_LIMIT
        && (descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    if !fits {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} descriptors; a message carries at most {DESCRIPTOR_LIMIT}",
                descriptors.len()
            ),
        ));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives bytes into `buffer`, says how many, and appends the descriptors that came with the last of them:
/// the kernel ends a read behind a message that carries some.
///
/// # Errors
/// `InvalidData`: far more descriptors than [`DESCRIPTOR_LIMIT`], or more than this process may have. Others are
/// the socket's. Descriptors that came in are closed then.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message carried more descriptors than can be taken",
        ));
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}
