//! How a change reaches the other nodes: one bounded stream a keyspace, which every node reads from where it left off.
//!
//! It is read by short polls over the connection that everything uses, not by a blocked connection of its own: a server that
//! hangs is then noticed and left like anywhere else, and 250 ms are soon enough. A stream and not publish/subscribe, because a
//! node that was away can tell whether it missed something: then it forgets all that it knows.

use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Value};

use super::{RedisCluster, RedisFailure, Script};
use crate::store::links::LinkAddress;

/// How often a node asks what was changed.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Entries that the stream keeps at least: the changes of a minute at more than a hundred a second, about 2 MB.
const KEPT_MIN: u32 = 10_000;
/// Entries that one poll brings.
const POLL_MAX: usize = 500;
/// How long the stream of a keyspace that nobody changes anything in stays.
const STREAM_TTL: Duration = Duration::from_hours(24);

/// Appends what was changed.
static PUBLISH: Script = Script::new(
    "redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'd', ARGV[3], 'c', ARGV[4], 'v', ARGV[5]) \
     redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
     return 1",
);

/// The oldest entry's ID, the newest one's, and the entries after `ARGV[1]`, as of one moment.
static POLL: Script = Script::new(
    "local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1] \
     local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1] \
     return {oldest and oldest[1] or '0-0', newest and newest[1] or '0-0', \
             redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])}",
);

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Which link.
    pub at: LinkAddress,
    /// The version it has now.
    pub version: u32,
}

/// The ID of an entry: milliseconds, then a number among those of the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId(u64, u64);

impl EntryId {
    fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// What a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    oldest: EntryId,
    newest: EntryId,
    entries: Vec<(EntryId, Invalidation)>,
}

/// What a node has to forget after a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These links.
    Changed(Vec<Invalidation>),
    /// Everything: something may have been missed.
    Gap,
}

/// How far a node has read; none before its first poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(Option<EntryId>);

impl Cursor {
    /// What a poll means for who had read this far, and how far that is now.
    pub fn advance(self, poll: Poll) -> (Self, News) {
        let Poll { oldest, newest, entries } = poll;
        let Self(Some(read)) = self else {
            // What was changed before the first poll may be known here already.
            return (Self(Some(newest)), News::Gap);
        };
        let was_rolled_back = newest < read;
        let was_trimmed = oldest > read && read != EntryId::default();
        if was_rolled_back || was_trimmed {
            return (Self(Some(newest)), News::Gap);
        }
        let last = entries.last().map_or(read, |(id, _)| *id);
        (Self(Some(last)), News::Changed(entries.into_iter().map(|(_, changed)| changed).collect()))
    }
}

/// Tells all nodes of a change.
pub async fn publish(redis: &RedisCluster, Invalidation { at, version }: &Invalidation) -> Result<(), RedisFailure> {
    let key = redis.keys()?.invalidations();
    let ttl_ms = u64::try_from(STREAM_TTL.as_millis()).unwrap_or(u64::MAX);
    let arguments = |script: &mut redis::Cmd| {
        script.arg(KEPT_MIN).arg(ttl_ms).arg(at.domain.as_str()).arg(at.code.as_str()).arg(*version);
    };
    redis.run(&PUBLISH, &key, arguments).await
}

/// Asks what was changed since `cursor`.
pub async fn poll(redis: &RedisCluster, cursor: Cursor) -> Result<Poll, RedisFailure> {
    let key = redis.keys()?.invalidations();
    let read = cursor.0.unwrap_or_default().to_string();
    let arguments = |script: &mut redis::Cmd| {
        script.arg(read.as_str()).arg(POLL_MAX);
    };
    redis.run(&POLL, &key, arguments).await
}

impl FromRedisValue for Poll {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let (oldest, newest, entries): (String, String, Entries) = redis::from_redis_value(value)?;
        let id = |text: &str| EntryId::parse(text).ok_or_else(|| ParsingError::from("not the ID of an entry"));
        let entries = entries.into_iter().map(|(at, fields)| Ok((id(&at)?, invalidation(&fields)?)));
        Ok(Self { oldest: id(&oldest)?, newest: id(&newest)?, entries: entries.collect::<Result<_, ParsingError>>()? })
    }
}

fn invalidation(fields: &[(String, String)]) -> Result<Invalidation, ParsingError> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    let parsed = field("d").zip(field("c")).zip(field("v").and_then(|version| version.parse().ok()));
    let ((domain, code), version) = parsed.ok_or_else(|| ParsingError::from("not an invalidation"))?;
    Ok(Invalidation { at: LinkAddress { domain, code }, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId(ms, 0)
    }

    fn changed(code: &str) -> Invalidation {
        Invalidation { at: LinkAddress { domain: String::new(), code: code.to_owned() }, version: 2 }
    }

    #[test]
    fn who_was_there_all_the_time_hears_of_each_change_once_and_who_missed_something_knows_it() {
        let check = |read: Option<u64>, (oldest, newest): (u64, u64), new: &[u64], expected: (u64, Option<usize>)| {
            let entries = new.iter().map(|at| (id(*at), changed("abc"))).collect();
            let poll = Poll { oldest: id(oldest), newest: id(newest), entries };
            let (Cursor(cursor), news) = Cursor(read.map(id)).advance(poll);
            let heard = match news {
                News::Changed(changed) => Some(changed.len()),
                News::Gap => None,
            };
            assert_eq!((cursor, heard), (Some(id(expected.0)), expected.1), "{read:?} {oldest} {newest} {new:?}");
        };
        check(Some(7), (3, 7), &[], (7, Some(0)));
        check(Some(7), (3, 9), &[8, 9], (9, Some(2)));
        // The last page is not the whole of it.
        check(Some(7), (3, 900), &[8, 9], (9, Some(2)));
        // The first poll of a node; of a new stream.
        check(None, (3, 9), &[8, 9], (9, None));
        check(Some(0), (0, 0), &[], (0, Some(0)));
        check(Some(0), (5, 6), &[5, 6], (6, Some(2)));
        // Trimmed beyond what was read; lost, or rolled back by a failover.
        check(Some(7), (8, 9), &[8, 9], (9, None));
        check(Some(7), (0, 0), &[], (0, None));
        check(Some(7), (3, 6), &[], (6, None));
    }

    #[test]
    fn ids_are_ordered_as_numbers() {
        let parse = |text: &str| EntryId::parse(text).unwrap();
        assert!(parse("9-1") < parse("10-0") && parse("10-2") < parse("10-10"));
        assert_eq!(parse("1769851800000-3").to_string(), "1769851800000-3");
        assert_eq!(EntryId::parse("1769851800000"), None);
    }
}
