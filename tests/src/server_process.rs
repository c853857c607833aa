//! A real server as a child process: killed, paused and started again as a test wants, and never outliving the test.
//! Its folder goes with it. Both hold when the test panics, and when the test's process is itself killed: statics are
//! not dropped, so that servers which the tests of one binary share could not be ended by a `Drop` alone.
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use shortener_node::ambient::random;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const LOG_TAIL_BYTES: usize = 4_096;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Below the ports that Linux gives to outgoing connections (32768 on): one of those could take a killed server's port
/// before the server is back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Far more than it takes to find a few free ports among twelve thousand.
const PORT_ATTEMPTS: usize = 1_000;
/// A server that is being killed may still write for a moment.
const REMOVE_SCRIPT: &str = r#"n=0
until rm -rf -- "$1" 2>/dev/null || [ "$n" -ge 100 ]; do n=$((n + 1)); sleep 0.1; done"#;

/// One server, running or not.
#[derive(Debug)]
pub struct ServerProcess {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    paused: AtomicBool,
}

impl ServerProcess {
    /// Starts `program`; its output goes to the end of the file `log`.
    pub fn start(program: &Path, arguments: Vec<OsString>, log: PathBuf) -> Result<Self> {
        let server = Self {
            program: program.to_owned(),
            arguments,
            log,
            child: Mutex::new(None),
            paused: AtomicBool::new(false),
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it as it was started before. It must have been killed, or have ended by itself.
    pub fn start_again(&self) -> Result<()> {
        ensure!(self.ending()?.is_some(), "{} runs already", self.program.display());
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(DIE_WITH_PARENT)
            .arg(&self.program)
            .args(&self.arguments)
            .process_group(0) // Ctrl-C in a terminal is for the tests, which then end it
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log);
        let child =
            spawn_lasting(move || command.spawn()).with_context(|| format!("starting {}", self.program.display()))?;
        *self.child() = Some(child);
        self.paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Ends it without warning (SIGKILL), paused or not, and returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        let Some(mut child) = self.child().take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).with_context(|| format!("killing {}", self.program.display()))?;
        Ok(())
    }

    /// Makes it hang (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.paused.store(true, Ordering::SeqCst);
        let pid = self.signal(Signal::STOP)?;
        // Its threads stop one after the other, and on a busy machine some would still answer for a while.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), stopped).context("waiting for a server to stop")?;
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Whether it has neither been killed nor paused, so that it is to be waited for.
    pub fn is_up(&self) -> bool {
        self.pid().is_some() && !self.paused.load(Ordering::SeqCst)
    }

    /// An error that shows the log, when it has ended by itself.
    pub fn expect_running(&self) -> Result<()> {
        if let Some(ending) = self.ending()? {
            bail!("{} ended: {ending}\n{}", self.program.display(), self.log_tail());
        }
        Ok(())
    }

    /// The end of what it has written.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = log.get(log.len().saturating_sub(LOG_TAIL_BYTES)..).unwrap_or_default();
        String::from_utf8_lossy(tail).into_owned()
    }

    /// How it ended; none while it runs.
    fn ending(&self) -> Result<Option<String>> {
        match self.child().as_mut() {
            Some(child) => {
                let status = child.try_wait().context("asking for a server's exit")?;
                Ok(status.map(|status| status.to_string()))
            }
            None => Ok(Some("killed".to_owned())),
        }
    }

    fn signal(&self, signal: Signal) -> Result<Pid> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.context("the server does not run")?;
        kill_process(pid, signal).context("signalling a server")?;
        Ok(pid)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that cannot be killed now is killed by the kernel with this process.
        let _ = self.kill();
    }
}

/// Arguments of `setpriv`, before a program and its own, by which the kernel kills the program with this process.
pub const DIE_WITH_PARENT: [&str; 3] = ["--pdeathsig", "KILL", "--"];

/// Makes a child that is to die with this process. The kernel counts the *thread* that made it as its parent, and a
/// test's thread ends with the test, so a thread that never ends makes them all.
pub fn spawn_lasting<C: Send + 'static>(make: impl FnOnce() -> io::Result<C> + Send + 'static) -> Result<C> {
    type Job = Box<dyn FnOnce() + Send>;
    static JOBS: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    let (reply, child) = channel();
    let job = move || {
        // Whoever no longer waits has dropped the server: so is the child, which is then not waited for.
        let _ = reply.send(make());
    };
    JOBS.send(Box::new(job)).ok().context("asking for a child process")?;
    child.recv().context("waiting for a child process")?.context("making a child process")
}

/// A shell script that is run when its handle is dropped, or when this process ends without dropping it.
#[derive(Debug)]
pub struct Afterwards(Child);

impl Afterwards {
    /// Prepares to run `script` with one argument, its `$1`.
    pub fn run(script: &str, argument: impl AsRef<OsStr>) -> Result<Self> {
        // It waits for the end of its standard input, which is held open by this process alone.
        let script = format!("cat >/dev/null\n{script}");
        let child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(argument)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting what is to clean up")?;
        Ok(Self(child))
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // At worst it still runs when the next test begins: whatever it cleans up is of one test alone.
        let _ = self.0.wait();
    }
}

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";
/// What the servers of several tests at once may need, in bytes.
const MEMORY_BYTES_MIN: u64 = 6 << 30;

fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|about| about.f_bavail.saturating_mul(about.f_frsize) >= MEMORY_BYTES_MIN)
}

/// A folder that is removed with its handle, or when this process ends without dropping it.
#[derive(Debug)]
pub struct ServerFolder {
    path: PathBuf,
    _removal: Afterwards,
}

impl ServerFolder {
    /// An empty folder of its own. It lies in memory where there is room: a server that waits for a busy disk holds up all who wait for
    /// the server, and what it has written stays there when it is killed.
    pub fn new() -> Result<Self> {
        let folder = if has_room(Path::new(MEMORY)) { TempDir::new_in(MEMORY) } else { TempDir::new() };
        let path = folder.context("making a folder for servers")?.keep();
        let removal = Afterwards::run(REMOVE_SCRIPT, &path)?;
        Ok(Self { path, _removal: removal })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it and returns the file's path.
    pub fn write(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, contents).with_context(|| format!("writing {name}"))?;
        Ok(path)
    }
}

/// Different ports that are free now, and that a server which is killed finds free again.
pub fn lasting_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until all are known, so that they differ.
    let mut held = Vec::with_capacity(count);
    for _ in 0..PORT_ATTEMPTS {
        if held.len() == count {
            break;
        }
        // At random, since other test processes look for ports in the same range.
        let port = PORTS.start + u16::from_le_bytes(random()) % (PORTS.end - PORTS.start);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    }
    ensure!(held.len() == count, "no {count} free ports in {PORTS:?}");
    held.iter().map(|listener| Ok(listener.local_addr().context("reading a bound port")?.port())).collect()
}

/// A name that no other test and no earlier run has used, so that they keep apart on servers that they share.
pub fn fresh_name(test: &str) -> String {
    format!("{test}-{:08x}", u32::from_le_bytes(random()))
}

/// Asks again and again until `condition` holds; its error ends the wait at once.
pub async fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let holds = async {
        while !condition().await? {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    };
    timeout(deadline, holds).await.with_context(|| format!("waited {deadline:?} until {what}"))?
}
