//! The `shortener-node` program: parses the settings, sets up logging, and calls the library.
fn main() {}
