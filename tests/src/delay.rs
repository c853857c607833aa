//! A proxy for TCP that passes bytes on as late as it is told to while it runs: what is between a client and a slow server. Only what the
//! server sends is delayed, so that each answer is late once; what follows it is as late as it, not later.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use bytes::Bytes;
use shortener_node::ambient::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

const CHUNK_BYTES: usize = 64 << 10;
/// Of what waits: as much as half a second of a fast answer.
const CHUNKS_WAITING: usize = 1_024;

/// How late, in milliseconds; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Delay(Arc<AtomicU64>);

impl Delay {
    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Takes `POST /delay/MILLISECONDS`.
pub async fn control(listen: SocketAddr, delay: Delay) -> Result<()> {
    let set = async |State(delay): State<Delay>, Path(milliseconds): Path<u64>| {
        delay.0.store(milliseconds, Ordering::Relaxed);
    };
    let router = Router::new().route("/delay/{milliseconds}", post(set)).with_state(delay);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    axum::serve(listener, router).await.context("serving the control address")
}

/// Passes connections on.
pub async fn serve(listen: SocketAddr, to: SocketAddr, delay: Delay) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    loop {
        let (client, _) = listener.accept().await.context("accepting a connection")?;
        let delay = delay.clone();
        // Either end sees what became of it: the connection is closed.
        tokio::spawn(async move { pass_on(client, to, delay).await.is_ok() });
    }
}

async fn pass_on(client: TcpStream, to: SocketAddr, delay: Delay) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let asked = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(asked, answered(from_server, to_client, delay))?;
    Ok(())
}

async fn answered(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
    delay: Delay,
) -> std::io::Result<()> {
    let (sender, mut waiting) = mpsc::channel::<(Duration, Bytes)>(CHUNKS_WAITING);
    let clock = Clock::system();
    let reader_clock = clock.clone();
    let reading = tokio::spawn(async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk).await?;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            let bytes = Bytes::copy_from_slice(chunk.get(..read).unwrap_or_default());
            if sender.send((reader_clock.monotonic() + delay.get(), bytes)).await.is_err() {
                return Ok(());
            }
        }
    });
    while let Some((due, bytes)) = waiting.recv().await {
        sleep(due.saturating_sub(clock.monotonic())).await;
        to.write_all(&bytes).await?;
    }
    to.shutdown().await?;
    reading.await.map_err(std::io::Error::other)?
}
