//! Connections as somebody hostile makes them: bytes that are written by hand, frames of HTTP/2 that no library would send, and clients
//! that ask and never read.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Above what any answer takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a socket takes nothing before it counts as full.
const FULL_AFTER: Duration = Duration::from_millis(500);
/// What the kernel keeps for a client that does not read, so that little is in flight.
const RECEIVE_BUFFER: u32 = 8 * 1024;

/// Opens a connection that is not going to be read.
pub async fn connect_unread(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4().context("making a socket")?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER).context("setting SO_RCVBUF")?;
    socket.connect(address).await.context("connecting")
}

/// Writes `bytes` until all are written, or the other side has taken nothing for a while, or it has closed. Gives how many it took.
pub async fn push(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match timeout(FULL_AFTER, stream.write(rest)).await {
            Ok(Ok(written)) => taken += written,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

/// An answer of HTTP/1, as it came.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// A header's value, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads one answer of HTTP/1 with a body of known length; none if the connection ends before it begins.
pub async fn read_answer(stream: &mut TcpStream) -> Result<Option<RawAnswer>> {
    timeout(DEADLINE, read_whole(stream, false)).await.context("no answer")?
}

/// The same for an answer to HEAD.
pub async fn read_head(stream: &mut TcpStream) -> Result<Option<RawAnswer>> {
    timeout(DEADLINE, read_whole(stream, true)).await.context("no answer")?
}

async fn read_whole(stream: &mut TcpStream, is_head: bool) -> Result<Option<RawAnswer>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(0) if head.is_empty() => return Ok(None),
            Ok(0) => anyhow::bail!("the answer breaks off: {}", String::from_utf8_lossy(&head)),
            Ok(_) => head.extend(byte),
            Err(error) if head.is_empty() => return Err(error).context("the connection was reset"),
            Err(error) => return Err(error).context(String::from_utf8_lossy(&head).into_owned()),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    let mut answer = RawAnswer { status, head, body: Vec::new() };
    let length = answer.header("content-length").map(str::parse).transpose()?.unwrap_or(0);
    if !is_head {
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).await.context("reading a body")?;
    }
    Ok(Some(answer))
}

/// Waits until the other side ends the connection, whatever comes before. Gives what came.
pub async fn read_to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        // A reset ends it as well.
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
    };
    timeout(DEADLINE, reading).await.context("the connection stays open")?;
    Ok(all)
}

/// A frame of HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What a client of HTTP/2 says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// PRIORITY.
pub const PRIORITY: u8 = 2;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// `WINDOW_UPDATE`.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;
/// Of DATA and HEADERS: nothing follows on the stream.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION: no header follows.
pub const END_HEADERS: u8 = 4;
/// The largest window.
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The window that each connection begins with.
const WINDOW_BEGUN: u32 = 65_535;
/// The setting of the window that each stream begins with.
const INITIAL_WINDOW_SIZE: u16 = 4;

impl Frame {
    /// A frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A request without a body.
    pub fn request(stream: u32, headers: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, END_STREAM | END_HEADERS, stream, header_block(headers))
    }

    /// `GET` of a path.
    pub fn get(stream: u32, authority: &str, path: &str) -> Self {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)];
        Self::request(stream, &pseudo)
    }

    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Headers as HPACK has them without a table and without compression.
pub fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A length in the seven bits that HPACK gives it, and further bytes where they are too few.
fn length(block: &mut Vec<u8>, length: usize) {
    const PREFIX_MAX: usize = 127;
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if length < PREFIX_MAX {
        block.push(byte(length));
        return;
    }
    block.push(byte(PREFIX_MAX));
    let mut rest = length - PREFIX_MAX;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

/// What a connection of HTTP/2 begins with, for a client that has room for `window` bytes on each stream, and for all on the connection.
pub fn preface(window: u32) -> Vec<u8> {
    let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    setting.extend(window.to_be_bytes());
    let mut bytes = PREFACE.to_vec();
    bytes.extend(Frame::new(SETTINGS, 0, 0, setting).bytes());
    bytes.extend(Frame::new(WINDOW_UPDATE, 0, 0, (WINDOW_MAX - WINDOW_BEGUN).to_be_bytes()).bytes());
    bytes
}

/// Reads one frame; none where the connection ends.
pub async fn read_frame(stream: &mut TcpStream) -> Result<Option<Frame>> {
    let reading = async {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok(None);
        }
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = head;
        let length = u32::from_be_bytes([0, l1, l2, l3]);
        ensure!(length <= 1 << 20, "a frame of {length} bytes");
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return Ok(None);
        }
        Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes([s1, s2, s3, s4]), payload }))
    };
    timeout(DEADLINE, reading).await.context("no frame comes and the connection stays open")?
}

/// Who asks and never reads: with which HTTP, and for what.
#[derive(Clone, Debug)]
pub struct Unread {
    /// What it is called.
    pub name: &'static str,
    /// What one connection sends, over and over.
    pub request: Vec<u8>,
    /// What it sends before.
    pub preface: Vec<u8>,
    /// Whether streams are to be numbered.
    pub is_http2: bool,
}

impl Unread {
    /// Requests of HTTP/1.1.
    pub fn http1(name: &'static str, request: impl Into<Vec<u8>>) -> Self {
        Self { name, request: request.into(), preface: Vec::new(), is_http2: false }
    }

    /// Requests of HTTP/2 by a client that has room for `window` bytes on each stream.
    pub fn http2(name: &'static str, window: u32, headers: &[(&str, &str)]) -> Self {
        Self { name, request: header_block(headers), preface: preface(window), is_http2: true }
    }

    /// So many requests, from the one with this number on.
    pub fn requests(&self, from: usize, count: usize) -> Vec<u8> {
        if !self.is_http2 {
            return self.request.repeat(count);
        }
        let stream = |number: usize| u32::try_from(number * 2 + 1).unwrap_or(1);
        let frame = |number| Frame::new(HEADERS, END_STREAM | END_HEADERS, stream(number), self.request.as_slice());
        (from..from + count).flat_map(|number| frame(number).bytes()).collect()
    }

    /// Opens `connections`, sends up to `requests` on each of them, and reads nothing. The connections end when they are dropped.
    pub async fn hold(&self, address: SocketAddr, connections: usize, requests: usize) -> Result<Vec<TcpStream>> {
        let bytes = [self.preface.clone(), self.requests(0, requests)].concat();
        let each = (0..connections).map(|_| async {
            let mut stream = connect_unread(address).await?;
            push(&mut stream, &bytes).await;
            anyhow::Ok(stream)
        });
        futures::future::try_join_all(each).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_hpack() {
        let check = |value: usize, expected: &[u8]| {
            let mut block = Vec::new();
            length(&mut block, value);
            assert_eq!(block, expected, "{value}");
        };
        check(0, &[0]);
        check(126, &[126]);
        check(127, &[127, 0]);
        check(255, &[127, 128, 1]);
        check(1_337, &[127, 186, 9]);
    }

    #[test]
    fn a_frame_has_its_length_type_flags_and_stream_first() {
        let ping = Frame::new(PING, 0, 0, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(ping.bytes(), [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
