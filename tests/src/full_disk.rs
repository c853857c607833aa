//! A disk that can be full: a file system in memory, which takes root to mount.
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::sizes::in_ci;

/// A mounted disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct FullDisk(Arc<TempDir>);

impl FullDisk {
    /// None, and a line that says so, where mounting is not allowed; in CI that is a failure.
    ///
    /// # Panics
    /// In CI, when nothing can be mounted.
    #[expect(clippy::expect_used, reason = "a test without a directory has nothing to do")]
    pub fn mount(size_mib: u64) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        if mount(&["-t", "tmpfs", "-o", &format!("size={size_mib}m"), "tmpfs"], directory.path()) {
            return Some(Self(Arc::new(directory)));
        }
        assert!(!in_ci(), "the tests of a full disk have to mount one, as root");
        #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
        {
            eprintln!("NOT RUN: the tests of a full disk have to mount one, as root");
        }
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The directory that it is mounted on, for a node to keep its data in.
    pub fn directory(&self) -> Arc<TempDir> {
        self.0.clone()
    }

    /// Changes a mount option, such as `size=512m` or `ro`.
    ///
    /// # Panics
    /// When the option is refused.
    pub fn remount(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], self.path()), "remounting with {option}");
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // What is left mounted is in memory and in a directory of its own: nothing else depends on it.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], directory: &Path) -> bool {
    Command::new("mount").args(arguments).arg(directory).status().is_ok_and(|status| status.success())
}
