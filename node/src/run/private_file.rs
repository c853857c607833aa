//! New files that hold secrets: readable by their owner alone, whole or not there, and never in place of another file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::ambient;

/// Nobody but the owner reads it.
const MODE: u32 = 0o600;

/// A file under a name that nobody can foresee, beside the one that it gets when it is whole. Dropped before that, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    at: PathBuf,
    to: PathBuf,
}

impl Draft {
    /// Begins what is to be `to`, which must not be there: neither as a file nor as a link.
    pub(super) fn create(to: &Path) -> io::Result<Self> {
        refuse_existing(to)?;
        let name = to.file_name().ok_or_else(|| io::Error::other("this is no name of a file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", hex::encode(ambient::random::<8>())));
        let at = to.with_file_name(hidden);
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).custom_flags(no_follow).open(&at)?;
        Ok(Self { file, at, to: to.to_owned() })
    }

    /// What is written to.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs it and gives it its name, unless somebody has taken that meanwhile.
    pub(super) fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        match renameat_with(CWD, &self.at, CWD, &self.to, RenameFlags::NOREPLACE) {
            // Not every file system can; one that has links refuses a name that is taken, too.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::hard_link(&self.at, &self.to)?,
            renamed => renamed?,
        }
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was renamed there is none.
        let _ = std::fs::remove_file(&self.at);
    }
}

fn refuse_existing(to: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already, and nothing is overwritten")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn written(to: &Path) -> io::Result<()> {
        let draft = Draft::create(to)?;
        draft.file().write_all(b"secret")?;
        draft.publish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_whole_and_private_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("backup");
        written(&to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"secret");
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(names(folder.path()), ["backup"]);
    }

    #[test]
    fn one_that_is_given_up_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let draft = Draft::create(&folder.path().join("backup")).unwrap();
        let hidden = names(folder.path());
        assert!(hidden.len() == 1 && hidden[0].starts_with(".backup."), "{hidden:?}");
        drop(draft);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn nothing_that_is_there_is_overwritten_or_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, to) = (folder.path().join("victim"), folder.path().join("backup"));
        std::fs::write(&victim, "precious").unwrap();
        let in_the_way: [&dyn Fn(); 4] = [
            &|| std::fs::write(&to, "older").unwrap(),
            &|| symlink(&victim, &to).unwrap(),
            &|| symlink(folder.path().join("nowhere"), &to).unwrap(),
            &|| std::fs::hard_link(&victim, &to).unwrap(),
        ];
        for put in in_the_way {
            // Before it begins, and while it is being written.
            put();
            assert_eq!(written(&to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            std::fs::remove_file(&to).unwrap();
            let draft = Draft::create(&to).unwrap();
            put();
            assert_eq!(draft.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            std::fs::remove_file(&to).unwrap();
            assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
            assert_eq!(names(folder.path()), ["victim"]);
        }
    }
}
