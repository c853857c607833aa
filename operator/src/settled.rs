//! What was applied and has not been changed since. The server writes some values in its own way (`0.5` becomes `500m`), so an object may
//! look other than it was wanted and still be as wanted; applying it again and again would change nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt;
use kube::api::DynamicObject;

use crate::kinds::Kind;

/// The versions that objects had when they were last applied, by namespace and name.
#[derive(Debug, Default)]
pub struct Settled(Mutex<BTreeMap<Key, String>>);

impl Settled {
    /// Notes an object as the server answered it.
    pub fn note(&self, kind: Kind, object: &DynamicObject) {
        if let Some(version) = object.resource_version() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key(kind, object), version);
        }
    }

    /// Whether an object is as it was when it was last applied.
    pub fn is(&self, kind: Kind, object: &DynamicObject) -> bool {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&key(kind, object)).is_some_and(|version| Some(version) == object.resource_version().as_ref())
    }
}

/// Kind, namespace and name. What is made anew under one name has another version.
type Key = (Kind, Option<String>, String);

fn key(kind: Kind, object: &DynamicObject) -> Key {
    (kind, object.namespace(), object.name_any())
}
