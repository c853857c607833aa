//! How many frames of HTTP/2 a client may send that ask for nothing.
//!
//! The HTTP library answers PING, SETTINGS and the like without end, and opens and cancels requests without end. So each frame
//! that asks for nothing costs one of a connection's credits. Requests, bytes of bodies and bytes that the client reads earn
//! credits, and so does time. A client that has none left is cut off.
//!
//! Only lengths and types of frames are looked at. Whether frames are right is for the HTTP library.

/// What an HTTP/2 connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Credits of a new connection, and the most that one can have.
const CREDITS_MAX: u32 = 1_024;
/// Credits that a request earns: a client updates two windows and some priorities for each.
const CREDITS_PER_REQUEST: u32 = 32;
/// Bytes of bodies, received or sent, that earn a credit. A client updates two windows for each frame that it reads.
const BYTES_PER_CREDIT: u64 = 1_024;
/// Credits that pass with each tick of time. Pings that keep a connection open need few.
const CREDITS_PER_TICK: u32 = 5;
/// Length of a frame's head.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// A client sends frames that ask for nothing, without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more HTTP/2 frames than requests explain")]
pub struct Flood;

/// Where in its frames a connection is, and its credits.
#[derive(Clone, Debug)]
pub struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the next head that have arrived.
    head_len: usize,
    /// Bytes that belong to the frame before the next head.
    rest: usize,
    credits: u32,
    /// Bytes that did not make up a credit yet.
    spare_bytes: u64,
    ticks: u32,
    written: u64,
}

impl Frames {
    /// A connection that begins. So many bytes of its preface have come before those that are seen.
    pub fn after_preface(bytes: usize) -> Self {
        Self {
            head: [0; HEAD_BYTES],
            head_len: 0,
            rest: PREFACE.len().saturating_sub(bytes),
            credits: CREDITS_MAX,
            spare_bytes: 0,
            ticks: 0,
            written: 0,
        }
    }

    /// Takes note of `bytes` that were read, when the connection is `ticks` old and the client has read `written` bytes in all.
    pub fn see(&mut self, mut bytes: &[u8], ticks: u32, written: u64) -> Result<(), Flood> {
        self.earn(ticks.saturating_sub(self.ticks).saturating_mul(CREDITS_PER_TICK));
        self.earn_bytes(written.saturating_sub(self.written));
        (self.ticks, self.written) = (ticks, written);
        while !bytes.is_empty() {
            if self.rest > 0 {
                let taken = self.rest.min(bytes.len());
                self.rest -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(place) = self.head.get_mut(self.head_len..self.head_len + taken) {
                place.copy_from_slice(now);
            }
            bytes = later;
            self.head_len += taken;
            if self.head_len == HEAD_BYTES {
                self.head_len = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    /// Counts the frame whose head is complete.
    fn count(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.rest = length as usize;
        let price = match kind {
            HEADERS => {
                self.earn(CREDITS_PER_REQUEST);
                0
            }
            DATA => {
                self.earn_bytes(u64::from(length));
                1
            }
            // What was asked for is not wanted: it earned nothing.
            RST_STREAM => CREDITS_PER_REQUEST + 1,
            _ => 1,
        };
        self.credits = self.credits.checked_sub(price).ok_or(Flood)?;
        Ok(())
    }

    fn earn(&mut self, credits: u32) {
        self.credits = self.credits.saturating_add(credits).min(CREDITS_MAX);
    }

    fn earn_bytes(&mut self, bytes: u64) {
        self.spare_bytes += bytes;
        self.earn(u32::try_from(self.spare_bytes / BYTES_PER_CREDIT).unwrap_or(CREDITS_MAX));
        self.spare_bytes %= BYTES_PER_CREDIT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIORITY: u8 = 2;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    const UNKNOWN: u8 = 0xbb;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEAD_BYTES + length as usize, 0);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::after_preface(0);
        frames.see(PREFACE, 0, 0).unwrap();
        frames
    }

    /// How often `round` can be sent before the connection is cut off; `None` after far more than is bearable.
    fn rounds(round: &[Vec<u8>]) -> Option<usize> {
        let (mut frames, bytes) = (begun(), round.concat());
        (0..200_000).find(|_| frames.see(&bytes, 0, 0).is_err())
    }

    #[test]
    fn frames_that_ask_for_nothing_are_cut_off_within_a_bounded_number() {
        let floods: &[(&str, &[Vec<u8>])] = &[
            ("ping", &[frame(PING, 8)]),
            ("empty settings", &[frame(SETTINGS, 0)]),
            ("settings", &[frame(SETTINGS, 6)]),
            ("window update", &[frame(WINDOW_UPDATE, 4)]),
            ("priority", &[frame(PRIORITY, 5)]),
            ("continuation", &[frame(CONTINUATION, 0)]),
            ("empty data", &[frame(DATA, 0)]),
            ("data of one byte", &[frame(DATA, 1)]),
            ("unknown", &[frame(UNKNOWN, 0)]),
            ("unknown with content", &[frame(UNKNOWN, 1_000)]),
            ("reset", &[frame(RST_STREAM, 4)]),
            ("request and reset", &[frame(HEADERS, 20), frame(RST_STREAM, 4)]),
            ("ping and priority", &[frame(PING, 8), frame(PRIORITY, 5)]),
        ];
        for (name, round) in floods {
            let held = rounds(round).unwrap_or_else(|| panic!("{name} is never cut off"));
            assert!(held <= 2_048, "{name}: {held}");
        }
    }

    #[test]
    fn clients_that_work_are_never_cut_off() {
        let request = [frame(HEADERS, 100)];
        assert_eq!(rounds(&request), None);
        let busy = [frame(PRIORITY, 5), frame(HEADERS, 100), frame(WINDOW_UPDATE, 4), frame(WINDOW_UPDATE, 4)];
        assert_eq!(rounds(&busy), None);
        let upload = [frame(DATA, 16_384)];
        assert_eq!(rounds(&upload), None);
        let one_in_three_cancelled =
            [frame(HEADERS, 100), frame(HEADERS, 100), frame(HEADERS, 100), frame(RST_STREAM, 4)];
        assert_eq!(rounds(&one_in_three_cancelled), None);
    }

    #[test]
    fn what_the_client_reads_pays_for_its_window_updates() {
        let (mut frames, update) = (begun(), frame(WINDOW_UPDATE, 4));
        for step in 1..100_000 {
            frames.see(&update, 0, step * BYTES_PER_CREDIT).unwrap();
        }
    }

    #[test]
    fn pings_now_and_then_are_never_cut_off() {
        let mut frames = begun();
        for tick in 1..100_000 {
            frames.see(&frame(PING, 8), tick, 0).unwrap();
        }
    }

    #[test]
    fn it_does_not_matter_how_frames_are_split_over_reads() {
        let bytes: Vec<u8> = [frame(HEADERS, 300), frame(DATA, 0), frame(PING, 8)].concat();
        for size in [1, 2, 8, 9, 10, 300] {
            let mut frames = Frames::after_preface(0);
            for part in PREFACE.chunks(size).chain(bytes.chunks(size)) {
                frames.see(part, 0, 0).unwrap();
            }
            assert_eq!((frames.head_len, frames.rest, frames.credits), (0, 0, CREDITS_MAX - 2), "{size}");
        }
    }
}
