//! One value of one setting, from text. Errors say what would be right; clap puts the setting's name before them.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use shortener_crds::ids::CodeLength;
use shortener_crds::ids::allocate::PodUid;
use zeroize::Zeroizing;

use super::{ConfigError, Database, invalid};
use crate::accounts::secret_key::{SecretKey, check_chosen};
use crate::cache::redis_cluster::{RedisCertificates, RedisSettings};
use crate::kv::tikv::{TikvSettings, Tls};
use crate::limits::LimitRule;
use crate::links::RedirectStatus;

/// Bytes in a mebibyte.
pub(super) const MIB: u64 = 1024 * 1024;

/// A secret: wiped when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps the secret's bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

/// The secret that signs, given directly or as a file: long enough, and none that somebody would guess.
pub(super) fn signing_secret(
    setting: &'static str,
    value: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<SecretKey>, ConfigError> {
    let Some(secret) = one_of(setting, value, file)? else { return Ok(None) };
    let key = SecretKey::new(secret.0.clone()).map_err(|error| invalid(setting, error.to_string()))?;
    check_chosen(&secret.0).map_err(|error| {
        invalid(setting, format!("{error}: take 32 random bytes, such as `openssl rand -hex 32` gives"))
    })?;
    Ok(Some(key))
}

/// The secret before the last rotation, with what is to be said about it. One that somebody would guess is taken: else nobody
/// could rotate it away.
pub(super) fn previous_secret(
    setting: &'static str,
    value: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<(Option<SecretKey>, Option<String>), ConfigError> {
    let Some(secret) = one_of(setting, value, file)? else { return Ok((None, None)) };
    let warning = check_chosen(&secret.0).err();
    let warning = warning.map(|error| format!("{setting} {error}; unset it as soon as its tokens have expired"));
    let key = SecretKey::new(secret.0).map_err(|error| invalid(setting, error.to_string()))?;
    Ok((Some(key), warning))
}

/// What is to be said of files that hold secrets: which of them others may read. Kubernetes gives secrets to a pod's group,
/// so that what the group may read is no matter.
pub(super) fn open_files<'a>(files: impl IntoIterator<Item = (&'static str, Option<&'a PathBuf>)>) -> Vec<String> {
    let others_may = |path: &Path| {
        // One that cannot be read is complained of where it is read.
        std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OPEN_TO_OTHERS != 0)
    };
    let open = files.into_iter().filter_map(|(setting, path)| Some((setting, path.filter(|path| others_may(path))?)));
    open.map(|(setting, path)| {
        format!("{setting}: others may read or change {}, which holds a secret; set its mode to 0600", path.display())
    })
    .collect()
}

/// The bits of a file's mode by which others may read, write or run it, or its group write it.
const OPEN_TO_OTHERS: u32 = 0o007 | 0o020;

fn one_of(setting: &'static str, value: Option<Secret>, file: Option<PathBuf>) -> Result<Option<Secret>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(invalid(setting, "give the value or the file, not both")),
        (Some(value), None) => Ok(Some(value)),
        (None, Some(path)) => read_secret(setting, &path).map(Some),
        (None, None) => Ok(None),
    }
}

/// What is said of Redis. The files among it may be replaced while the node runs, and read again.
#[derive(Clone, Debug, Default)]
pub struct RedisSource {
    pub(super) url: Option<Secret>,
    pub(super) url_file: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl RedisSource {
    /// The settings, with the files as they are now; none where no cluster is named.
    pub fn read(&self) -> Result<Option<RedisSettings>, ConfigError> {
        let Self { url, url_file, username, password, password_file, ca, cert, key } = self.clone();
        let certificates = redis_certificates(ca, cert, key)?;
        redis(url, url_file, certificates, redis_login(username, password, password_file)?)
    }

    /// The files that the settings come from.
    pub fn files(&self) -> Vec<PathBuf> {
        let Self { url: _, url_file, username: _, password: _, password_file, ca, cert, key } = self.clone();
        [url_file, password_file, ca, cert, key].into_iter().flatten().collect()
    }
}

/// Where the cluster of `REDIS_URL` is, which is a secret because a password may stand in it.
fn redis(
    value: Option<Secret>,
    file: Option<PathBuf>,
    certificates: Option<RedisCertificates>,
    (user, password): RedisLogin,
) -> Result<Option<RedisSettings>, ConfigError> {
    let setting = "REDIS_URL";
    let settings = one_of(setting, value, file)?.map(|secret| {
        let text = std::str::from_utf8(&secret.0).map_err(|_| invalid(setting, "must be text"))?;
        RedisSettings::parse(text).map_err(|problem| invalid(setting, problem))
    });
    let settings = settings.transpose()?;
    let settings = match (settings, password) {
        (settings, None) if user.is_none() => settings,
        (_, None) => return Err(invalid("REDIS_USERNAME", "needs REDIS_PASSWORD")),
        (Some(settings), Some(password)) if settings.password.is_none() => {
            Some(RedisSettings { user, password: Some(password), ..settings })
        }
        (Some(_), Some(_)) => return Err(invalid("REDIS_PASSWORD", "is in REDIS_URL already; give it once")),
        (None, Some(_)) => return Err(invalid("REDIS_PASSWORD", "needs REDIS_URL: it opens that cluster")),
    };
    match (settings, certificates) {
        (Some(settings), Some(certificates)) if settings.is_tls => Ok(Some(RedisSettings { certificates, ..settings })),
        (_, Some(_)) => Err(invalid("REDIS_CA", "is for a REDIS_URL of rediss-cluster://; leave it unset")),
        (settings, None) => Ok(settings),
    }
}

/// Who logs in to Redis, where that is not in its URL.
type RedisLogin = (Option<String>, Option<Zeroizing<String>>);

/// `REDIS_USERNAME` and `REDIS_PASSWORD`.
fn redis_login(
    user: Option<String>,
    password: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<RedisLogin, ConfigError> {
    let setting = "REDIS_PASSWORD";
    let password = one_of(setting, password, file)?.map(|secret| {
        let text = std::str::from_utf8(&secret.0).map_err(|_| invalid(setting, "must be text"))?;
        Ok(Zeroizing::new(text.to_owned()))
    });
    Ok((user, password.transpose()?))
}

/// What TLS to Redis goes by, where that is not what this machine trusts.
fn redis_certificates(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<RedisCertificates>, ConfigError> {
    let read = |setting, path: PathBuf| {
        std::fs::read(&path).map_err(|source| ConfigError::Unreadable { setting, path, source })
    };
    let client = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((read("REDIS_CERT", cert)?, Zeroizing::new(read("REDIS_KEY", key)?))),
        _ => return Err(invalid("REDIS_CERT", "give REDIS_CERT and REDIS_KEY together, or neither")),
    };
    let ca = ca.map(|path| read("REDIS_CA", path)).transpose()?;
    Ok((ca.is_some() || client.is_some()).then_some(RedisCertificates { ca, client }))
}

fn read_secret(setting: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    let bytes =
        std::fs::read(path).map_err(|source| ConfigError::Unreadable { setting, path: path.to_owned(), source })?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    Ok(Secret::new(bytes.trim_ascii_end().to_vec()))
}

/// `embedded:DIRECTORY` or `tikv://host:port,host:port/keyspace`.
pub(super) fn database(text: &str) -> Result<Database, String> {
    if let Some(tikv) = text.strip_prefix("tikv://") {
        return TikvSettings::parse(tikv).map(Database::Tikv);
    }
    match text.strip_prefix("embedded:") {
        Some(directory) if !directory.is_empty() => Ok(Database::Embedded(PathBuf::from(directory))),
        _ => Err("must be embedded:DIRECTORY or tikv://host:port,host:port/keyspace".to_owned()),
    }
}

/// The three files of mutual TLS: all of them or none.
pub(super) fn tls(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<Tls>, ConfigError> {
    match (ca, cert, key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => {
            for (setting, path) in [("TIKV_CA", &ca), ("TIKV_CERT", &cert), ("TIKV_KEY", &key)] {
                let read = std::fs::File::open(path);
                read.map_err(|source| ConfigError::Unreadable { setting, path: path.clone(), source })?;
            }
            Ok(Some(Tls { ca, cert, key }))
        }
        _ => Err(invalid("TIKV_CA", "give TIKV_CA, TIKV_CERT and TIKV_KEY together, or none of them")),
    }
}

/// A number of characters, 6 to 10.
pub(super) fn code_length(text: &str) -> Result<CodeLength, String> {
    let length = text.parse::<u8>().map_err(|_| "must be a number from 6 to 10".to_owned())?;
    CodeLength::try_from(length).map_err(|error| error.to_string())
}

/// 301, 302, 307 or 308.
pub(super) fn redirect_status(text: &str) -> Result<RedirectStatus, String> {
    let status = text.parse::<u16>().ok().and_then(RedirectStatus::new);
    status.ok_or_else(|| "must be 301, 302, 307 or 308".to_owned())
}

/// A network in CIDR form, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    network.map_err(|_| "must be an address or a network such as 10.0.0.0/8".to_owned())
}

/// The shortest prefixes of networks that may be proxies. 10.0.0.0/8 and `fc00::/7` are private; what is wider has the whole
/// internet in it, and everybody could claim any address.
const PROXY_PREFIX_BITS_MIN: (u8, u8) = (8, 7);

/// A network whose word on addresses is taken.
pub(super) fn proxies(text: &str) -> Result<IpNet, String> {
    let network = network(text)?;
    let (ipv4, ipv6) = PROXY_PREFIX_BITS_MIN;
    let is_narrow = match network {
        IpNet::V4(network) => network.prefix_len() >= ipv4,
        IpNet::V6(network) => network.prefix_len() >= ipv6,
    };
    match is_narrow {
        true => Ok(network),
        false => Err(format!(
            "would believe everybody: name the networks of your proxies alone, no wider than /{ipv4} (IPv6: /{ipv6}), \
             such as 10.0.0.0/8"
        )),
    }
}

/// The longest name of a pod, in bytes.
const POD_NAME_BYTES_MAX: usize = 253;
/// The longest name that is also a label's value or a label of DNS, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The name of a pod: labels of DNS, joined by dots.
pub(super) fn pod_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= POD_NAME_BYTES_MAX && text.split('.').all(is_label);
    is_name.then(|| text.to_owned()).ok_or_else(|| {
        format!("must be the name of a pod: at most {POD_NAME_BYTES_MAX} of a-z, 0-9, - and ., such as main-7c9f-x2b4q")
    })
}

/// The name of a namespace or a `ShortenerCluster`: one label of DNS.
pub(super) fn label_name(text: &str) -> Result<String, String> {
    (text.len() <= LABEL_BYTES_MAX && is_label(text)).then(|| text.to_owned()).ok_or_else(|| {
        format!("must be a name of at most {LABEL_BYTES_MAX} of a-z, 0-9 and -, which begins and ends with a letter or digit")
    })
}

/// What Kubernetes calls the UID of a pod.
pub(super) fn pod_uid(text: &str) -> Result<PodUid, String> {
    let is_uid = text.len() <= LABEL_BYTES_MAX && is_label(&text.to_ascii_lowercase());
    is_uid
        .then(|| PodUid(text.to_owned()))
        .ok_or_else(|| "must be the UID of a pod, such as b5f0b0e4-7a5c-4f0e-9f0e-0d6b8a1c2d3e".to_owned())
}

/// Whether a text is a label of DNS but for its length.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// `requests/seconds`.
pub(super) fn rule(text: &str) -> Result<LimitRule, String> {
    let shape = || "must be requests/seconds, both at least 1, such as 20/300".to_owned();
    let (requests, window) = text.split_once('/').ok_or_else(shape)?;
    let requests = requests.trim().parse::<u32>().map_err(|_| shape())?;
    LimitRule::new(requests, span(window.trim())?).map_err(|error| error.to_string())
}

/// A number and a unit from `units`; a bare number is the unit's whose name is empty.
fn quantity(text: &str, units: &[(&str, u64)], shape: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim()).map(|(_, scale)| *scale);
    let number = number.parse::<u64>().ok();
    number.zip(scale).and_then(|(number, scale)| number.checked_mul(scale)).ok_or_else(|| shape.to_owned())
}

/// A span of time: bare numbers are seconds; ms, s, m, h and d are understood.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let units = [("", 1_000), ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let span_ms = quantity(text, &units, "must be a number of seconds, or a number with ms, s, m, h or d")?;
    match span_ms {
        // Ten years: what is longer is a slip of the keyboard, and sums of such spans could overflow.
        0..=315_360_000_000 => Ok(Duration::from_millis(span_ms)),
        _ => Err("must be at most ten years".to_owned()),
    }
}

/// A number of bytes: bare numbers are bytes; KiB, MiB and GiB are understood.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("", 1), ("B", 1), ("KiB", 1024), ("MiB", MIB), ("GiB", 1024 * MIB)];
    quantity(text, &units, "must be a number of bytes, or a number with KiB, MiB or GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_bytes_take_bare_numbers_and_units() {
        assert_eq!(span("5"), Ok(Duration::from_secs(5)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(bytes("64MiB"), Ok(64 * MIB));
        assert_eq!(bytes("10"), Ok(10));
        for wrong in ["", "s", "-1", "5 years", "1.5s", "99999999999999999999", "400000d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "MB", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
