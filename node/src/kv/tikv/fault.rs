//! What an error of the TiKV client means for us: pure.

use tikv_client::{Error, ProtoKeyError};

use crate::kv::KvError;
use crate::resilience::Verdict;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another transaction wrote the key first, or holds it at the moment.
    Conflict,
    /// An insert found its key, which is given without the keyspace's prefix.
    AlreadyExists { key: Vec<u8> },
    /// A store or the placement driver cannot be connected to; the client may never try another by itself.
    Unreachable { reason: String },
    /// It did not answer, or answered that it cannot do it now.
    Unavailable { reason: String },
}

impl Fault {
    /// What `error` means in a keyspace whose keys begin with `prefix`.
    pub(super) fn of(error: &Error, prefix: &[u8]) -> Self {
        match error {
            Error::KeyError(error) => Self::of_a_key(error, prefix),
            Error::MultipleKeyErrors(errors) | Error::ExtractedErrors(errors) => {
                // One key that exists, or one that was written, decides for all: the transaction cannot commit.
                let faults = errors.iter().map(|error| Self::of(error, prefix));
                faults.min_by_key(Self::rank).unwrap_or_else(|| Self::unavailable(error))
            }
            Error::UndeterminedError(inner) | Error::PessimisticLockError { inner, .. } => Self::of(inner, prefix),
            // Somebody holds a lock and has not run out of time.
            Error::ResolveLockError(_) => Self::Conflict,
            Error::Grpc(_) => Self::Unreachable { reason: "a server of the cluster cannot be connected to".to_owned() },
            // The client's own tasks ended: nobody answers it any more.
            Error::Channel(_) | Error::Canceled(_) | Error::InternalError { .. } => {
                Self::Unreachable { reason: "the client lost its connection".to_owned() }
            }
            other => Self::unavailable(other),
        }
    }

    fn of_a_key(error: &ProtoKeyError, prefix: &[u8]) -> Self {
        if let Some(exists) = &error.already_exist {
            let key = exists.key.strip_prefix(prefix).unwrap_or(&exists.key);
            return Self::AlreadyExists { key: key.to_vec() };
        }
        let is_conflict = error.conflict.is_some() || error.locked.is_some() || !error.retryable.is_empty();
        match is_conflict || error.commit_ts_expired.is_some() || error.txn_not_found.is_some() {
            true => Self::Conflict,
            false => Self::Unavailable { reason: "it refused the transaction".to_owned() },
        }
    }

    /// Without the error's own text: it may hold keys, and with them codes and addresses.
    fn unavailable(error: &Error) -> Self {
        let reason = match error {
            Error::GrpcAPI(status) => format!("a request failed: {}", status.code().description()),
            Error::RegionError(error) if error.server_is_busy.is_some() => "a store is too busy".to_owned(),
            Error::RegionError(_) | Error::LeaderNotFound { .. } => "a region has no leader at the moment".to_owned(),
            _ => "the client failed".to_owned(),
        };
        Self::Unavailable { reason }
    }

    /// Which of several faults of one transaction is the one to tell, lowest first. A conflict comes before a key that exists:
    /// who begins again sees the key, and one that exists only in a transaction that was overtaken says nothing.
    fn rank(&self) -> u8 {
        match self {
            Self::Conflict => 0,
            Self::AlreadyExists { .. } => 1,
            Self::Unreachable { .. } => 2,
            Self::Unavailable { .. } => 3,
        }
    }

    /// What it says of the back end.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Conflict | Self::AlreadyExists { .. } => Verdict::Answered,
            Self::Unreachable { .. } | Self::Unavailable { .. } => Verdict::Failed,
        }
    }

    /// The transaction that left a lock without its primary, by its start, if that is what `error` is about.
    pub(super) fn orphan(error: &Error) -> Option<u64> {
        match error {
            Error::KeyError(error) => error.txn_not_found.as_ref().map(|found| found.start_ts),
            Error::TxnNotFound(found) => Some(found.start_ts),
            Error::MultipleKeyErrors(errors) | Error::ExtractedErrors(errors) => errors.iter().find_map(Self::orphan),
            Error::UndeterminedError(inner) => Self::orphan(inner),
            _ => None,
        }
    }

    /// As the error of a read. One that met a lock for longer than it may wait has not read anything.
    pub(super) fn of_a_read(self) -> KvError {
        match self {
            Self::Conflict | Self::AlreadyExists { .. } => {
                KvError::Unavailable { reason: "a row is locked for longer than a read waits".to_owned() }
            }
            Self::Unreachable { reason } | Self::Unavailable { reason } => KvError::Unavailable { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &[u8] = b"s:test:";

    fn key_error(change: impl FnOnce(&mut ProtoKeyError)) -> Error {
        let mut error = ProtoKeyError::default();
        change(&mut error);
        Error::KeyError(Box::new(error))
    }

    fn exists() -> Error {
        key_error(|error| error.already_exist.get_or_insert_default().key = b"s:test:abc".to_vec())
    }

    fn conflict() -> Error {
        key_error(|error| {
            error.conflict.get_or_insert_default();
        })
    }

    fn lost() -> Error {
        Error::StringError("s:test:abc".to_owned())
    }

    #[test]
    fn what_one_key_says_decides_for_the_transaction() {
        let check = |error: Error, expected: &Fault| assert_eq!(&Fault::of(&error, PREFIX), expected, "{error:?}");
        let abc = Fault::AlreadyExists { key: b"abc".to_vec() };
        check(exists(), &abc);
        check(conflict(), &Fault::Conflict);
        check(Error::MultipleKeyErrors(vec![exists(), conflict()]), &Fault::Conflict);
        check(Error::ExtractedErrors(vec![lost(), Error::MultipleKeyErrors(vec![exists()])]), &abc);
        check(Error::UndeterminedError(Box::new(conflict())), &Fault::Conflict);
        check(Error::ResolveLockError(Vec::new()), &Fault::Conflict);
        check(key_error(|error| error.retryable = "later".to_owned()), &Fault::Conflict);
    }

    #[test]
    fn a_lock_without_its_primary_names_its_transaction() {
        let orphan = key_error(|error| error.txn_not_found.get_or_insert_default().start_ts = 7);
        assert_eq!(Fault::orphan(&Error::MultipleKeyErrors(vec![conflict(), orphan])), Some(7));
        assert_eq!(Fault::orphan(&conflict()), None);
    }

    #[test]
    fn what_is_no_answer_is_unavailable_and_tells_no_key() {
        for error in
            [lost(), key_error(|error| error.abort = "s:test:abc".to_owned()), Error::MultipleKeyErrors(Vec::new())]
        {
            let fault = Fault::of(&error, PREFIX);
            assert!(matches!(&fault, Fault::Unavailable { reason } if !reason.contains("abc")), "{fault:?}");
            assert_eq!(fault.verdict(), Verdict::Failed);
        }
    }
}
