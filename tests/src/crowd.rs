//! Many connections that mean harm, held on one port and opened anew whenever they are closed.
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long one waits before it connects again: so often that places are always wanted, and so seldom that the machine has time left.
const PAUSE: Duration = Duration::from_millis(250);
/// Time between two bytes of a slow head.
const DRIP: Duration = Duration::from_millis(300);

/// What each connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Says nothing.
    Silent,
    /// Sends a head byte by byte, and never its end.
    SlowHead,
    /// Asks once, reads the answer, and stays.
    KeptOpen,
    /// Asks for large answers without end, and reads nothing.
    ReadsNothing,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silent, Self::SlowHead, Self::KeptOpen, Self::ReadsNothing];
}

/// Where the connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// One address, which is not that of the tests' other clients.
    One,
    /// The address of the tests' other clients.
    Ours,
    /// An address each.
    Many,
}

impl Sources {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::One, Self::Ours, Self::Many];

    fn address(self, number: u32) -> Ipv4Addr {
        match self {
            Self::One => Ipv4Addr::new(127, 0, 0, 2),
            Self::Ours => Ipv4Addr::LOCALHOST,
            // All of 127.0.0.0/8 is this machine.
            Self::Many => Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number),
        }
    }
}

/// A crowd at work; it ends when it is dropped.
#[derive(Debug)]
pub struct Crowd {
    _members: JoinSet<()>,
}

impl Crowd {
    /// Has `count` connections to `target` held, and waits until each was open once.
    pub async fn gather(target: SocketAddr, count: u32, habit: Habit, sources: Sources) -> Result<Self> {
        allow_files(u64::from(count) * 2 + 1_000)?;
        let mut members = JoinSet::new();
        let (opened, mut opens) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..count {
            let (from, opened) = (sources.address(number), opened.clone());
            members.spawn(async move {
                let mut opened = Some(opened);
                loop {
                    // A port that is taken, or a listener that is behind: again later.
                    if let Ok(stream) = connect(from, target).await {
                        if let Some(opened) = opened.take() {
                            // Nobody waits any more.
                            let _ = opened.send(());
                        }
                        act(stream, habit).await;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        drop(opened);
        for _ in 0..count {
            opens.recv().await.context("a member of the crowd ended")?;
        }
        Ok(Self { _members: members })
    }
}

async fn connect(from: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Its port is not to be in the way of a test that listens on all interfaces.
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    socket.connect(target).await
}

/// Does as is its habit until the connection is closed.
async fn act(mut stream: TcpStream, habit: Habit) {
    const LARGE: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
    match habit {
        Habit::Silent => {}
        Habit::SlowHead => {
            for byte in b"GET /livez HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a')) {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(DRIP).await;
            }
        }
        Habit::KeptOpen => {
            if stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.is_err() {
                return;
            }
        }
        Habit::ReadsNothing => {
            while stream.write_all(&LARGE.repeat(50)).await.is_ok() {
                sleep(DRIP).await;
            }
            return;
        }
    }
    while matches!(stream.read(&mut [0; 4_096]).await, Ok(1..)) {}
}

/// Raises the number of files that this process may open to `files`, if it is lower.
///
/// # Errors
/// When the machine does not allow as many.
pub fn allow_files(files: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        let limit = Rlimit { current: Some(files), maximum };
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("this test needs {files} open files (ulimit -n)"))?;
    }
    Ok(())
}
