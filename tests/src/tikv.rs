//! A TiKV cluster for the tests: the real Placement Driver, and stores that speak TiKV's protocol (`tests/env/tikv`), on
//! free loopback ports with a folder of their own. They can be killed, paused, cut into regions and made to lose answers.
//! With `TEST_PD_ENDPOINTS` the same tests run against a cluster that is there already, which is left as it is: only the
//! tests that harm a cluster are then not run.
mod builder;
mod pd;
mod store;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::OnceCell;

pub use self::builder::{Layout, TikvBuilder};
use self::pd::Pd;
use self::store::Store;
pub use self::store::{Region, StoreStatus};
use crate::certificates::Certificates;
use crate::server_process::{ServerFolder, wait_until};
use crate::sizes::environment;

/// Endpoints of a real cluster's PD, comma separated, to be used instead of servers of our own.
pub const PD_ENDPOINTS_VARIABLE: &str = "TEST_PD_ENDPOINTS";
/// Names the directory with `pd-server` and `tikvd` when they are built already.
pub const BINARIES_VARIABLE: &str = "SHORTENER_TIKV_DIR";
/// Builds them and prints that directory.
pub const SCRIPT: &str = "tests/env/tikv.sh";

/// PD and three stores start in 5 s on two idle cores.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// What a store that refuses does all the same.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// Nothing.
    Unexecuted,
    /// What it was asked: the client cannot tell.
    Executed,
    /// It refuses only to commit the rows of a transaction whose primary row is committed.
    SecondaryCommits,
}

/// A running cluster. Indices of PD members and stores begin with 0.
#[derive(Debug)]
pub struct Tikv {
    // Processes come before their folder: fields are dropped in this order.
    pds: Vec<Pd>,
    stores: Vec<Store>,
    regions: usize,
    external: Option<Vec<String>>,
    certificates: Option<Certificates>,
    folder: ServerFolder,
}

impl Tikv {
    /// A cluster of one PD and one store.
    pub fn builder() -> TikvBuilder {
        TikvBuilder { pd_members: 1, layout: Layout::Single, sync_writes: false, tls: false }
    }

    /// The cluster that the tests of this binary share: each takes a keyspace of its own, and none harms it. None as for
    /// [`TikvBuilder::start`], but for a cluster that is there already, which is then the shared one.
    pub async fn shared() -> Result<Option<&'static Self>> {
        static SHARED: OnceCell<Option<Tikv>> = OnceCell::const_new();
        let start = async || match environment(PD_ENDPOINTS_VARIABLE) {
            Some(endpoints) => Self::external(&endpoints).map(Some),
            None => Self::builder().start_own().await,
        };
        Ok(SHARED.get_or_try_init(start).await?.as_ref())
    }

    fn external(endpoints: &str) -> Result<Self> {
        let endpoints = endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
        let folder = ServerFolder::new()?;
        Ok(Self {
            pds: Vec::new(),
            stores: Vec::new(),
            regions: 0,
            external: Some(endpoints),
            certificates: None,
            folder,
        })
    }

    /// `host:port` of each PD member, dead or alive; with TLS when the cluster has that.
    pub fn pd_endpoints(&self) -> Vec<String> {
        self.external.clone().unwrap_or_else(|| self.pds.iter().map(Pd::endpoint).collect())
    }

    /// The node's `DATABASE_URL` for a keyspace.
    pub fn database_url(&self, keyspace: &str) -> String {
        format!("tikv://{}/{keyspace}", self.pd_endpoints().join(","))
    }

    /// What clients of a cluster with TLS need.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// `host:port` of all that speaks TLS to clients: PD's members, and the proxies before the stores.
    pub fn tls_endpoints(&self) -> Vec<String> {
        let proxies = self.stores.iter().flat_map(Store::proxies);
        self.certificates.iter().flat_map(|_| self.pd_endpoints()).chain(proxies).collect()
    }

    /// Addresses to ask with a browser or curl: those of PD's interface, and those of the stores' state and faults.
    pub fn admin_urls(&self) -> Vec<String> {
        let pds = self.pds.iter().map(|pd| format!("http://{}/pd/api/v1/stores", pd.plain_endpoint()));
        pds.chain(self.stores.iter().map(|store| format!("{}/status", store.admin_url()))).collect()
    }

    /// Kills a store. What it acknowledged is there when it is started again.
    pub fn kill_store(&self, store: usize) -> Result<()> {
        self.store(store)?.process.kill()
    }

    /// Starts a killed store on its old data and addresses, and waits until it serves.
    pub async fn restart_store(&self, store: usize) -> Result<()> {
        self.store(store)?.process.start_again()?;
        self.wait_until_serving().await
    }

    /// Makes a store hang: connections stay open and nothing answers.
    pub fn pause_store(&self, store: usize) -> Result<()> {
        self.store(store)?.process.pause()
    }

    /// Lets a hanging store go on.
    pub fn resume_store(&self, store: usize) -> Result<()> {
        self.store(store)?.process.resume()
    }

    /// Kills a member of PD.
    pub fn kill_pd(&self, member: usize) -> Result<()> {
        self.pd(member)?.process.kill()
    }

    /// Starts a killed member on its old data, and waits until the cluster serves and counts it as healthy.
    pub async fn restart_pd(&self, member: usize) -> Result<()> {
        self.pd(member)?.process.start_again()?;
        self.wait_until_serving().await
    }

    /// Makes a member hang.
    pub fn pause_pd(&self, member: usize) -> Result<()> {
        self.pd(member)?.process.pause()
    }

    /// Lets a hanging member go on.
    pub fn resume_pd(&self, member: usize) -> Result<()> {
        self.pd(member)?.process.resume()
    }

    /// The member that leads and gives the timestamps.
    pub async fn pd_leader(&self) -> Result<usize> {
        for pd in self.running_pds() {
            if let Ok(leader) = pd.leader().await {
                return self.pds.iter().position(|other| other.name == leader).context("a stranger leads");
            }
        }
        bail!("no member knows a leader")
    }

    /// Delays this share of all answers by so long; from 0 to 1.
    pub async fn delay_answers(&self, share: f64, delay: Duration) -> Result<()> {
        self.ask_stores(&format!("/delay?share={share}&ms={}", delay.as_millis())).await
    }

    /// Loses this share of the answers to prewrites and commits. They are executed; the client sees `Unavailable`.
    pub async fn drop_write_answers(&self, share: f64) -> Result<()> {
        self.ask_stores(&format!("/drop?share={share}")).await
    }

    /// Refuses this share of reads and writes, in the words of TiKV that `tests/env/tikv/store/refusal.go` lists.
    pub async fn refuse(&self, kind: &str, share: f64, what: Refused) -> Result<()> {
        let more = match what {
            Refused::Unexecuted => "",
            Refused::Executed => "&executed",
            Refused::SecondaryCommits => "&secondaries",
        };
        self.ask_stores(&format!("/refuse?kind={kind}&share={share}{more}")).await
    }

    /// Ends delays, losses and refusals, and begins to count anew.
    pub async fn reset_faults(&self) -> Result<()> {
        self.ask_stores("/reset").await
    }

    /// What all stores have counted since they started, or since the last reset.
    pub async fn status(&self) -> Result<StoreStatus> {
        let mut all = StoreStatus::default();
        for store in self.own_stores()? {
            all.add(store.status().await?);
        }
        Ok(all)
    }

    /// Takes an address of [`Layout::Replicas`] down; its regions have no leader for a second, then another address.
    pub async fn stop_address(&self, address: usize) -> Result<()> {
        self.store(0)?.ask(&format!("/stop?store={address}")).await
    }

    /// The same where the election takes so long.
    pub async fn stop_address_for_an_election_of(&self, address: usize, election: Duration) -> Result<()> {
        self.store(0)?.ask(&format!("/stop?store={address}&election={}ms", election.as_millis())).await
    }

    /// Brings the address back.
    pub async fn start_address(&self, address: usize) -> Result<()> {
        self.store(0)?.ask(&format!("/start?store={address}")).await
    }

    /// Moves the leaders of all regions to an address of [`Layout::Replicas`].
    pub async fn move_leaders(&self, address: usize) -> Result<()> {
        for region in self.store(0)?.status().await?.regions {
            self.move_leader(region.id, address).await?;
        }
        Ok(())
    }

    /// Moves the leader of one region.
    pub async fn move_leader(&self, region: u64, address: usize) -> Result<()> {
        self.store(0)?.ask(&format!("/leader?region={region}&store={address}")).await
    }

    /// Cuts the region that holds `key` in two.
    pub async fn split(&self, key: &[u8]) -> Result<()> {
        let key: String = url::form_urlencoded::byte_serialize(key).collect();
        let mut refusals = Vec::new();
        for store in self.own_stores()? {
            match store.ask(&format!("/split?key={key}")).await {
                Ok(()) => return Ok(()),
                Err(error) => refusals.push(format!("{error:#}")),
            }
        }
        bail!("no store splits at {key}: {}", refusals.join("; "))
    }

    /// Waits until every running process serves: PD's members are healthy, and it knows a leader for each region.
    pub async fn wait_until_serving(&self) -> Result<()> {
        self.wait_for_pd().await?;
        for store in self.stores.iter().filter(|store| store.process.is_up()) {
            wait_until("the store serves", START_DEADLINE, async || {
                store.process.expect_running()?;
                Ok(store.status().await.is_ok())
            })
            .await?;
        }
        let pd = self.running_pds().next().context("no member of PD runs")?;
        wait_until("PD knows every region's leader", START_DEADLINE, async || {
            Ok(pd.regions_led().await.is_ok_and(|regions| regions >= self.regions))
        })
        .await
    }

    async fn wait_for_pd(&self) -> Result<()> {
        for pd in self.running_pds() {
            wait_until("PD's member is healthy", START_DEADLINE, async || {
                pd.process.expect_running()?;
                Ok(pd.is_healthy().await.unwrap_or(false))
            })
            .await?;
        }
        Ok(())
    }

    async fn ask_stores(&self, request: &str) -> Result<()> {
        for store in self.own_stores()? {
            store.ask(request).await?;
        }
        Ok(())
    }

    fn own_stores(&self) -> Result<&[Store]> {
        ensure!(self.external.is_none(), "the stores are not ours to ask");
        Ok(&self.stores)
    }

    fn store(&self, store: usize) -> Result<&Store> {
        self.own_stores()?.get(store).with_context(|| format!("there is no store {store}"))
    }

    fn pd(&self, member: usize) -> Result<&Pd> {
        self.pds.get(member).with_context(|| format!("there is no member {member}, or it is not ours to harm"))
    }

    fn running_pds(&self) -> impl Iterator<Item = &Pd> {
        self.pds.iter().filter(|pd| pd.process.is_up())
    }
}
