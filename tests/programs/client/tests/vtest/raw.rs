//! A client that speaks vtest and Venus itself, without Mesa.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::server::{PATIENCE, Server};

/// Connects a client that speaks vtest itself, up to its context.
pub(crate) fn client(server: &Server, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send(&mut stream, 8, name.len() + 1, name.as_bytes());
    stream.write_all(&[0]).unwrap();
    send(&mut stream, 17, 1, &4_u32.to_le_bytes());
    stream
}

pub(crate) fn send(stream: &mut UnixStream, number: u32, length: usize, payload: &[u8]) {
    stream.write_all(&(length as u32).to_le_bytes()).unwrap();
    stream.write_all(&number.to_le_bytes()).unwrap();
    stream.write_all(payload).unwrap();
}

/// Sends Venus commands in one batch.
pub(crate) fn submit(stream: &mut UnixStream, commands: &[u8]) {
    let words = commands.len() as u32 / 4;
    let batch = [1, 0, 9, words, 0, 0, 0, 0, 0_u32];
    let mut payload: Vec<u8> = batch.iter().flat_map(|word| word.to_le_bytes()).collect();
    payload.extend_from_slice(commands);
    send(stream, 24, payload.len() / 4, &payload);
}

/// Waits until the server closes the connection.
pub(crate) fn await_end(mut stream: UnixStream) {
    let mut rest = Vec::new();
    // A reset ends the connection, too.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}
