//! The operator: turns a `ShortenerCluster` into the objects that run it, hands out worker IDs and ID ranges through the
//! resource's status, and sizes the fleet from the redirect latency that Prometheus reports. It reads, thinks and writes:
//! `observe` → `plan` → `execute`. What it decides about IDs already lives in `shortener_crds::ids`, shared with the
//! nodes; the controller itself comes with the cluster resource.
