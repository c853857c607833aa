//! Which cluster, and as whom: `redis-cluster://user:password@host:6379,host:6379`.

use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// What is right, for whoever wrote something else. Never repeats what was written: a password stands in it.
const SHAPE: &str = "must be redis-cluster://user:password@host:6379,host:6379, or rediss-cluster:// for TLS; user and password may be left out";

/// Where a Redis Cluster is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Addresses of some of its servers, `host:port`; some may be down.
    pub seeds: Vec<String>,
    /// The ACL user; none is Redis' own `default`.
    pub user: Option<String>,
    /// The password, if it asks for one.
    pub password: Option<Zeroizing<String>>,
    /// Whether to speak TLS.
    pub is_tls: bool,
    /// Certificates for that; none are those that this machine trusts, and none of ours.
    pub certificates: RedisCertificates,
}

/// What TLS goes by: the contents of PEM files.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisCertificates {
    /// Who signed the servers' certificates, if not one that this machine trusts.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key, for servers that ask for one.
    pub client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl RedisSettings {
    /// Parses the whole of `REDIS_URL`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (is_tls, rest) = match (text.strip_prefix("redis-cluster://"), text.strip_prefix("rediss-cluster://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(SHAPE),
        };
        let (credentials, seeds) = rest.rsplit_once('@').map_or((None, rest), |(who, seeds)| (Some(who), seeds));
        let seeds: Vec<String> = seeds.trim_end_matches('/').split(',').map(|seed| seed.trim().to_owned()).collect();
        if !seeds.iter().all(|seed| is_address(seed)) {
            return Err(SHAPE);
        }
        let (user, password) = credentials.map(user_and_password).transpose()?.unwrap_or_default();
        Ok(Self { seeds, user, password, is_tls, certificates: RedisCertificates::default() })
    }
}

type Credentials = (Option<String>, Option<Zeroizing<String>>);

/// `user:password`, `:password` or `password`, percent-encoded.
fn user_and_password(text: &str) -> Result<Credentials, &'static str> {
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    let decode =
        |part: &str| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| SHAPE);
    let (user, password) = (decode(user)?, Zeroizing::new(decode(password)?));
    if password.is_empty() {
        return Err(SHAPE);
    }
    Ok(((!user.is_empty()).then_some(user), Some(password)))
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    port.parse::<u16>().is_ok_and(|port| port > 0) && url::Host::parse(host).is_ok()
}

impl fmt::Debug for RedisSettings {
    /// Without the password and the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, user, password: _, is_tls, certificates: _ } = self;
        let mut shown = f.debug_struct("RedisSettings");
        shown.field("seeds", seeds).field("user", user).field("is_tls", is_tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_credentials_are_read_and_anything_else_is_refused_without_repeating_it() {
        let settings =
            RedisSettings::parse("redis-cluster://ada:p%40ss%2Cw:rd@r-0:6379, 10.0.0.1:6379,[::1]:6380").unwrap();
        assert_eq!(settings.seeds, ["r-0:6379", "10.0.0.1:6379", "[::1]:6380"]);
        assert_eq!((settings.user.as_deref(), settings.is_tls), (Some("ada"), false));
        assert_eq!(settings.password.as_ref().map(|password| password.as_str()), Some("p@ss,w:rd"));
        assert!(!format!("{settings:?}").contains("p@ss"), "{settings:?}");
        let open = RedisSettings::parse("rediss-cluster://r-0:6379/").unwrap();
        assert_eq!((open.user, open.password, open.is_tls), (None, None, true));
        let by_password = RedisSettings::parse("redis-cluster://:secret@r-0:6379").unwrap();
        assert_eq!((by_password.user, by_password.password.is_some()), (None, true));
        for wrong in [
            "redis://r-0:6379",
            "redis-cluster://",
            "redis-cluster://r-0",
            "redis-cluster://r-0:0",
            "redis-cluster://r-0:6379,",
            "redis-cluster://secret:@r-0:6379",
            "redis-cluster://secret@",
            "redis-cluster://r-0:6379/1",
        ] {
            let problem = RedisSettings::parse(wrong).expect_err(wrong);
            assert!(!problem.contains("secret"), "{wrong}: {problem}");
        }
    }
}
