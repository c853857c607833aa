//! Probes are answered whatever others do on the admin port: of the node, and of the operator.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shortener_node::ambient::Clock;
use shortener_operator::config::Run;
use shortener_tests::client::{Answer, Client};
use shortener_tests::crowd::{Crowd, Habit, Sources};
use shortener_tests::node::Node;
use shortener_tests::operator::settings;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections of the crowd.
const CROWD: u32 = 1_000;
/// Probes in a row, each on a connection of its own as the kubelet's are.
const PROBES: usize = 10;
/// The kubelet's own default of `failureThreshold`.
const FAILURES_MAX: usize = 3;
/// Ten times what a probe may take: the crowd and other tests share this machine's cores. Without a place a probe waits for 45 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_probes_are_answered_under_a_thousand_hostile_connections() -> Result<()> {
    let node = Node::start().await?;
    let address: SocketAddr = node.admin_url().trim_start_matches("http://").parse()?;
    under_every_crowd(address, [200, 200]).await?;
    // The public port went on meanwhile, and the node ends in time with the crowd still there.
    let _crowd = Crowd::gather(address, CROWD, Habit::Silent, Sources::One).await?;
    node.client()?.create("https://www.example.com/").await?;
    node.stop().await?;
    Ok(())
}

/// It needs no API server to answer that it is alive, and not ready.
#[tokio::test(flavor = "multi_thread")]
async fn the_operators_probes_are_answered_under_a_thousand_hostile_connections() -> Result<()> {
    // Nothing listens there.
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse()?);
    let client = kube::Client::try_from(nowhere)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, shutdown) = (listener.local_addr()?, CancellationToken::new());
    let (settings, stop): (Run, _) = (settings("links"), shutdown.clone());
    let operator = tokio::spawn(async move { shortener_operator::run(&settings, client, listener, stop).await });
    under_every_crowd(address, [200, 503]).await?;
    shutdown.cancel();
    operator.await.context("the operator ended well")??;
    Ok(())
}

/// Asks `/livez` and `/readyz` under every kind of crowd, and wants these statuses.
async fn under_every_crowd(address: SocketAddr, [livez, readyz]: [u16; 2]) -> Result<()> {
    let clock = Clock::system();
    for habit in Habit::ALL {
        for sources in Sources::ALL {
            let _crowd = Crowd::gather(address, CROWD, habit, sources).await?;
            let mut slowest = Duration::ZERO;
            for _ in 0..PROBES {
                for (path, expected) in [("/livez", livez), ("/readyz", readyz)] {
                    let begun = clock.monotonic();
                    let answer = probed(address, path).await;
                    let answer = answer.with_context(|| format!("{path} under {habit:?} from {sources:?}"))?;
                    ensure!(answer.status == expected, "{path} under {habit:?} from {sources:?}: {}", answer.status);
                    slowest = slowest.max(clock.monotonic().saturating_sub(begun));
                }
            }
            show(&format!("{CROWD} {habit:?} from {sources:?}: slowest probe {slowest:?}"));
            ensure!(slowest < ANSWERED_WITHIN, "a probe took {slowest:?} under {habit:?} from {sources:?}");
        }
    }
    Ok(())
}

/// Asks as the kubelet does: on a connection of its own each time, and a third failure in a row is one.
async fn probed(address: SocketAddr, path: &str) -> Result<Answer> {
    for _ in 1..FAILURES_MAX {
        if let Ok(answer) = Client::new(&format!("http://{address}"))?.get(path).await {
            return Ok(answer);
        }
    }
    Client::new(&format!("http://{address}"))?.get(path).await
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
fn show(figure: &str) {
    println!("{figure}");
}
