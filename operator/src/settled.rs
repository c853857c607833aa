//! What was applied and has not been changed since. The server writes some values in its own way (`0.5` becomes `500m`), so an object may
//! look other than it was wanted and still be as wanted; applying it again and again would change nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt;
use kube::api::DynamicObject;

use crate::kinds::Kind;

/// The versions that objects had when they were last applied, by UID.
#[derive(Debug, Default)]
pub struct Settled(Mutex<BTreeMap<(Kind, String), String>>);

impl Settled {
    /// Notes an object as the server answered it.
    pub fn note(&self, kind: Kind, object: &DynamicObject) {
        if let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, uid), version);
        }
    }

    /// Whether an object is as it was when it was last applied.
    pub fn is(&self, kind: Kind, object: &DynamicObject) -> bool {
        let Some(uid) = object.uid() else { return false };
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&(kind, uid)).is_some_and(|version| Some(version) == object.resource_version().as_ref())
    }

    /// Forgets objects that are not there any more.
    pub fn keep_only(&self, kind: Kind, is_there: impl Fn(&str) -> bool) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|(of, uid), _| *of != kind || is_there(uid));
    }
}
