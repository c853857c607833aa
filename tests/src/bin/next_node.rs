//! The node as the next release might be: it knows one format of rows more. For tests of rollouts.
use std::process::ExitCode;

use shortener_node::program;
use shortener_node::store::format::Format;

fn main() -> ExitCode {
    program(Format::NEXT)
}
