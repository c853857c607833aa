//! The `shortener-node` program.

use std::process::ExitCode;

use shortener_node::program;
use shortener_node::store::format::Format;

fn main() -> ExitCode {
    program(Format::NEWEST)
}
