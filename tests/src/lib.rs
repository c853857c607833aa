//! The harness that the scenarios, benchmarks and tasks share: real nodes as child processes, a client that asserts
//! nothing, and the sizes that tell a short run from a soak.
pub mod bench;
pub mod browser;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod fleet;
pub mod full_disk;
pub mod installed;
pub mod kubernetes;
pub mod kv_writer;
pub mod model;
pub mod node;
pub mod operator;
pub mod preload;
pub mod prepared;
pub mod programs;
pub mod prometheus;
pub mod redis_cluster;
pub mod server_process;
pub mod sizes;
pub mod sockets;
pub mod tasks;
pub mod tcp_proxy;
pub mod tikv;
pub mod tikv_engine;
pub mod witness;
