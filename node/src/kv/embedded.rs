//! The embedded engine.
/// The engine.
#[derive(Clone, Debug)]
pub struct Embedded;
