//! The key that signs tokens: the configured one, or one that is made once and kept beside the data, for this user alone.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::RunError;
use super::private_file::Draft;
use crate::accounts::secret_key::SecretKey;
use crate::ambient;

/// Bytes of a generated key.
const KEY_BYTES: usize = 32;
/// The file's name in the data directory.
const FILE_NAME: &str = "secret_key";

/// The configured key, or the one in the data `directory`, which is made if there is none. Nodes that share a store have no such
/// directory, and have to be given a key.
pub(super) fn load(configured: Option<SecretKey>, directory: Option<&Path>) -> Result<SecretKey, RunError> {
    let directory = match (configured, directory) {
        (Some(secret), _) => return Ok(secret),
        (None, Some(directory)) => directory,
        (None, None) => return Err(RunError::Start("SECRET_KEY is not set".to_owned())),
    };
    let path = directory.join(FILE_NAME);
    let failed = |source| RunError::SecretKey { path: path.clone(), source };
    match File::open(&path) {
        Ok(file) => read(file).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => make(&path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn read(mut file: File) -> std::io::Result<SecretKey> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(std::io::Error::other("others may read it; set its mode to 0600, and change the key if they did"));
    }
    let mut bytes = Vec::with_capacity(KEY_BYTES);
    file.read_to_end(&mut bytes)?;
    match bytes.len() {
        KEY_BYTES => secret(bytes),
        length => Err(std::io::Error::other(format!("it has {length} bytes instead of {KEY_BYTES}"))),
    }
}

fn secret(bytes: Vec<u8>) -> std::io::Result<SecretKey> {
    SecretKey::new(Zeroizing::new(bytes)).map_err(std::io::Error::other)
}

/// Written under another name first: a key that was cut short by a crash would lock everybody out.
fn make(path: &Path) -> std::io::Result<SecretKey> {
    let bytes: [u8; KEY_BYTES] = ambient::random();
    let draft = Draft::create(path)?;
    draft.file().write_all(&bytes)?;
    draft.publish()?;
    secret(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_private_and_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let first = load(None, Some(directory.path())).unwrap();
        let again = load(None, Some(directory.path())).unwrap();
        assert_eq!(first.derive(b"test"), again.derive(b"test"));
        let mode = std::fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_was_cut_short_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        load(None, Some(directory.path())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(load(None, Some(directory.path())).unwrap_err().to_string().contains("0600"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(load(None, Some(directory.path())).unwrap_err().to_string().contains("5 bytes"));
    }
}
