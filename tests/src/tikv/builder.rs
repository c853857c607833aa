//! Starts a cluster: its programs, PD first, then the stores in their layout.
use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::sync::OnceCell;

use super::pd::Pd;
use super::store::Store;
use super::{BINARIES_VARIABLE, PD_ENDPOINTS_VARIABLE, SCRIPT, Tikv};
use crate::certificates::Certificates;
use crate::prepared::{Prepared, not_run, provided, say_not_run};
use crate::server_process::{ServerFolder, lasting_ports};
use crate::sizes::environment;

/// How many addresses or stores the larger layouts have.
const PARTS: usize = 3;

/// How the keys are spread over stores. No layout replicates: each key is kept once.
#[derive(Clone, Debug)]
pub enum Layout {
    /// One store.
    Single,
    /// Three addresses over one engine: leaders move between them, as clients see it when a store goes away.
    Replicas,
    /// Three stores, each with the keys between two of these.
    Shards([Vec<u8>; PARTS - 1]),
}

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct TikvBuilder {
    pub(super) pd_members: usize,
    pub(super) layout: Layout,
    pub(super) sync_writes: bool,
    pub(super) tls: bool,
}

impl TikvBuilder {
    /// One member, or three, of which any may be lost.
    #[must_use]
    pub fn pd_members(mut self, members: usize) -> Self {
        self.pd_members = members;
        self
    }

    /// How keys are spread over stores.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Syncs each write to the disk, as TiKV does. Without, a killed store still loses nothing; only a power cut would.
    #[must_use]
    pub fn sync_writes(mut self) -> Self {
        self.sync_writes = true;
        self
    }

    /// Mutual TLS to PD, which speaks it itself, and to the stores, which have a proxy before them. It lives no longer than
    /// the runtime of the test that starts it.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts the cluster and waits until it serves. None, and a line that says so, where its programs cannot be had or
    /// the tests are to use a cluster that is there already; the first is a failure in CI.
    pub async fn start(self) -> Result<Option<Tikv>> {
        if environment(PD_ENDPOINTS_VARIABLE).is_some() {
            say_not_run(&format!("{PD_ENDPOINTS_VARIABLE} is set, and this test harms its servers"));
            return Ok(None);
        }
        self.start_own().await
    }

    pub(super) async fn start_own(self) -> Result<Option<Tikv>> {
        let binaries = match binaries().await? {
            Prepared::Ready(directory) => PathBuf::from(directory),
            Prepared::Missing(reason) => {
                not_run(&format!("the tests on TiKV: {reason}"))?;
                return Ok(None);
            }
        };
        let folder = ServerFolder::new()?;
        let certificates = self.tls.then(|| Certificates::write(folder.path())).transpose()?;
        let pds = Pd::start_all(&binaries, folder.path(), self.pd_members, certificates.as_ref())?;
        let regions = if matches!(self.layout, Layout::Shards(_)) { PARTS } else { 1 };
        let mut tikv = Tikv { pds, stores: Vec::new(), regions, external: None, certificates, folder };
        tikv.wait_for_pd().await?;
        self.start_stores(&binaries, &mut tikv).await?;
        tikv.wait_until_serving().await?;
        Ok(Some(tikv))
    }

    async fn start_stores(&self, binaries: &Path, tikv: &mut Tikv) -> Result<()> {
        let pd = tikv.pds.iter().map(Pd::plain_endpoint).collect::<Vec<_>>().join(",");
        for (number, (addresses, part)) in self.processes().into_iter().enumerate() {
            let ports = lasting_ports(addresses + 1)?;
            let mut arguments = vec![format!("-pd={pd}")];
            arguments.extend(part);
            if self.sync_writes {
                arguments.push("-sync".to_owned());
            }
            let certificates = tikv.certificates.as_ref();
            let store = Store::start(binaries, tikv.folder.path(), number, &ports, certificates, arguments);
            tikv.stores.push(store.await?);
        }
        Ok(())
    }

    /// The processes of the layout: how many addresses each has, and which part of the keys.
    fn processes(&self) -> Vec<(usize, Vec<String>)> {
        match &self.layout {
            Layout::Single => vec![(1, Vec::new())],
            Layout::Replicas => vec![(PARTS, Vec::new())],
            Layout::Shards(keys) => {
                let keys = keys.each_ref().map(hex::encode).join(",");
                let part =
                    |part| vec!["-shard".to_owned(), format!("{part}/{PARTS}"), "-split".to_owned(), keys.clone()];
                (0..PARTS).map(|number| (1, part(number))).collect()
            }
        }
    }
}

/// Where the programs are: named by the environment, else built by the script, once a process.
async fn binaries() -> Result<Prepared> {
    static BINARIES: OnceCell<Prepared> = OnceCell::const_new();
    provided(&BINARIES, BINARIES_VARIABLE, SCRIPT).await
}
