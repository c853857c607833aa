//! A TCP proxy before servers: it ends mutual TLS for a server that knows none, or spreads connections over several. It
//! lives no longer than the runtime that it was started on.
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::task::AbortOnDropHandle;

use crate::certificates::Certificates;

/// Who connects and says nothing holds a connection no longer than this.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Connections that cannot be accepted, such as when no descriptor is left, are tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port of loopback that is taken and leads nowhere yet.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Takes `port`; 0 takes any that is free.
    pub async fn on(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("listening on port {port}"))?;
        let address = listener.local_addr().context("reading a bound port")?;
        Ok(Self { listener, address })
    }

    /// The port that was taken.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Gives each connection to the next server, passing over those that refuse it.
    pub fn in_turn(self, servers: Vec<SocketAddr>) -> TcpProxy {
        self.open(Forward { tls: None, servers })
    }

    fn open(self, forward: Forward) -> TcpProxy {
        let accepting = tokio::spawn(accept(self.listener, Arc::new(forward)));
        TcpProxy { address: self.address, _accepting: AbortOnDropHandle::new(accepting) }
    }
}

/// A proxy that listens until it is dropped; its connections end with it.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl TcpProxy {
    /// Takes TLS with HTTP/2 from whoever shows a certificate of the authority, and talks plainly to `server`.
    pub async fn ending_tls(certificates: &Certificates, server: SocketAddr) -> Result<Self> {
        let tls = TlsAcceptor::from(Arc::new(server_config(certificates)?));
        Ok(Door::on(0).await?.open(Forward { tls: Some(tls), servers: vec![server] }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What becomes of a connection.
struct Forward {
    tls: Option<TlsAcceptor>,
    servers: Vec<SocketAddr>,
}

impl Forward {
    async fn serve(&self, mut client: TcpStream, turn: usize) -> io::Result<()> {
        // Small answers are not to wait for the acknowledgement of what went before them.
        client.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => {
                let mut client = timeout(HANDSHAKE_DEADLINE, tls.accept(client)).await??;
                copy_bidirectional(&mut client, &mut self.connect(turn).await?).await?;
            }
            None => {
                copy_bidirectional(&mut client, &mut self.connect(turn).await?).await?;
            }
        }
        Ok(())
    }

    async fn connect(&self, turn: usize) -> io::Result<TcpStream> {
        let mut refused = io::Error::other("there is no server");
        for server in self.servers.iter().cycle().skip(turn % self.servers.len().max(1)).take(self.servers.len()) {
            match TcpStream::connect(server).await {
                Ok(server) => {
                    server.set_nodelay(true)?;
                    return Ok(server);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

async fn accept(listener: TcpListener, forward: Arc<Forward>) {
    let mut connections = JoinSet::new();
    for turn in 0.. {
        match listener.accept().await {
            Ok((client, _)) => {
                let forward = Arc::clone(&forward);
                // Either end sees what became of it: the connection is closed.
                connections.spawn(async move { forward.serve(client, turn).await.is_ok() });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

fn server_config(certificates: &Certificates) -> Result<ServerConfig> {
    let Certificates { ca, cert, key } = certificates;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).context("reading the authority")?).context("taking the authority")?;
    let provider = Arc::new(default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_client_cert_verifier(clients.build().context("asking for client certificates")?)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert).context("reading the certificate")?],
            PrivateKeyDer::from_pem_file(key).context("reading the key")?,
        )
        .context("taking the certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
