//! One write to a socket: memory by `sendmsg`, bytes that are a file by `sendfile`, both in the order given.

use carrack_mapped::{Located, locate};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

/// Writes as much as the socket takes now of these slices, which together are not empty; returns how many bytes.
///
/// Memory in front of a file is sent with `MSG_MORE`, so that a head and the beginning of its body share a segment; the
/// file that follows in the same call pushes them out. `UnexpectedEof` when a file has become shorter than the bytes
/// that were promised of it.
pub(crate) fn send(socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let first_file = slices.iter().enumerate().find_map(|(index, slice)| Some((index, locate(slice)?)));
    let Some((index, file)) = first_file else {
        return Ok(send_memory(&socket, slices, SendFlags::empty())?);
    };
    let length = slices[index].len();
    if index == 0 {
        return send_file(&socket, file, length);
    }
    let before: usize = slices[..index].iter().map(|slice| slice.len()).sum();
    if before == 0 {
        return send_file(&socket, file, length);
    }
    let sent = send_memory(&socket, &slices[..index], SendFlags::MORE)?;
    if sent < before {
        return Ok(sent);
    }
    match send_file(&socket, file, length) {
        Ok(more) => Ok(sent + more),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(sent),
        Err(error) => Err(error),
    }
}

fn send_memory(socket: &impl AsFd, slices: &[IoSlice<'_>], more: SendFlags) -> Result<usize, Errno> {
    let mut control = SendAncillaryBuffer::default();
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, slices, &mut control, SendFlags::NOSIGNAL | more)
    })
}

/// `sendfile` has no `MSG_NOSIGNAL`: for a client that has gone it raises SIGPIPE, which a Rust program ignores from its
/// start, and fails with `EPIPE`.
fn send_file(socket: &impl AsFd, file: Located<'_>, length: usize) -> io::Result<usize> {
    let mut offset = file.offset;
    match rustix::io::retry_on_intr(|| rustix::fs::sendfile(socket, file.file, Some(&mut offset), length))? {
        0 => Err(shorter(file.offset, length)),
        sent => Ok(sent),
    }
}

/// Fills `target` with the bytes of a file, for a connection that has to see them. `UnexpectedEof` as above.
pub(crate) fn read_file(file: Located<'_>, target: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        let offset = file.offset + done as u64;
        match rustix::io::retry_on_intr(|| rustix::io::pread(file.file, &mut target[done..], offset))? {
            0 => return Err(shorter(offset, target.len() - done)),
            count => done += count,
        }
    }
    Ok(())
}

fn shorter(offset: u64, length: usize) -> io::Error {
    tracing::error!(offset, length, "a stored file has become shorter while it was being sent");
    io::ErrorKind::UnexpectedEof.into()
}
