//! What a stranger may hold open on a listener, and for how long.

use std::time::Duration;

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// How long a client may take to send a request's head; also how long an idle connection of HTTP/1 is kept.
    pub header_timeout: Duration,
    /// How long a connection is kept on which no request begins and nothing is read.
    pub idle_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub unread_timeout: Duration,
    /// The same while answers that nobody reads take [`UNSENT_BYTES_MAX`](super::UNSENT_BYTES_MAX).
    pub unread_timeout_when_full: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: u32,
    /// Header lines in a request.
    pub headers_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of request bodies that an HTTP/2 connection may send ahead of who reads them.
    pub receive_window: u32,
    /// Bytes that the kernel keeps for a client that does not read. It takes twice as much for its own needs.
    pub send_buffer: usize,
}

impl ConnectionLimits {
    /// For the public. The limit of open files may lower the number of connections.
    pub const PUBLIC: Self = Self {
        connections_max: 16_384,
        header_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(45),
        unread_timeout: Duration::from_secs(30),
        unread_timeout_when_full: Duration::from_secs(5),
        // Cookies of other services on the same domain come along, and browsers send 16 KiB of them and more.
        header_bytes_max: 32 * 1024,
        headers_max: 100,
        streams_max: 128,
        receive_window: 256 * 1024,
        // At 200 ms to the client and back this is 640 kB/s, more than any answer needs.
        send_buffer: 128 * 1024,
    };
}
