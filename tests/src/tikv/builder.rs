//! Starts a cluster: its programs, PD first, then the stores in their layout.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::pd::Pd;
use super::store::Store;
use super::{BINARIES_VARIABLE, PD_ENDPOINTS_VARIABLE, SCRIPT, Tikv};
use crate::prepared::{Prepared, not_run, prepare, say_not_run};
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
        let pds = Pd::start_all(&binaries, folder.path(), self.pd_members)?;
        let regions = if matches!(self.layout, Layout::Shards(_)) { PARTS } else { 1 };
        let mut tikv = Tikv { pds, stores: Vec::new(), regions, external: None, folder };
        tikv.wait_for_pd().await?;
        tikv.stores = self.start_stores(&binaries, tikv.folder.path(), &tikv.pd_endpoints().join(","))?;
        tikv.wait_until_serving().await?;
        Ok(Some(tikv))
    }

    fn start_stores(&self, binaries: &Path, folder: &Path, pd: &str) -> Result<Vec<Store>> {
        let start = |number: usize, addresses: usize, more: Vec<String>| {
            let mut arguments = vec![format!("-pd={pd}")];
            arguments.extend(more);
            if self.sync_writes {
                arguments.push("-sync".to_owned());
            }
            Store::start(binaries, folder, number, &lasting_ports(addresses + 1)?, arguments)
        };
        match &self.layout {
            Layout::Single => Ok(vec![start(0, 1, Vec::new())?]),
            Layout::Replicas => Ok(vec![start(0, PARTS, Vec::new())?]),
            Layout::Shards(keys) => {
                let keys = keys.each_ref().map(hex::encode);
                let part = |part: usize| {
                    ["-shard".to_owned(), format!("{part}/{PARTS}"), "-split".to_owned(), keys.join(",")].to_vec()
                };
                (0..PARTS).map(|number| start(number, 1, part(number))).collect()
            }
        }
    }
}

/// Where the programs are: named by the environment, else built by the script, once a process.
async fn binaries() -> Result<Prepared> {
    static BINARIES: OnceCell<Prepared> = OnceCell::const_new();
    let find = async || match environment(BINARIES_VARIABLE) {
        Some(directory) => Ok(Prepared::Ready(directory)),
        None => spawn_blocking(|| prepare(SCRIPT)).await.context("running the script")?,
    };
    BINARIES.get_or_try_init(find).await.cloned()
}
