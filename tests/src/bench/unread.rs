//! Resident memory of the node while clients ask for a large answer and read nothing: by requests that one of them sends, and by how
//! many of them there are. Draws it, beside an older node if there is one to compare with.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use plotters::prelude::*;
use tokio::time::sleep;

use super::machine::{described, resident_mib};
use crate::node::Node;
use crate::wire::{Unread, connect_unread, push};

/// The largest answer that strangers may ask for.
const PATH: &str = "/docs/swagger-ui-bundle.js";
/// Requests that one client sends, and how many of them between two looks.
const REQUESTS: usize = 300;
const REQUESTS_STEP: usize = 25;
/// Clients at once, how many more between two looks, and what each of them sends.
const CLIENTS: usize = 64;
const CLIENTS_STEP: usize = 8;
const REQUESTS_EACH: usize = 8;
/// How long the node has for what was sent.
const SETTLED_AFTER: Duration = Duration::from_millis(700);
const SIZE: (u32, u32) = (900, 560);

/// What was seen of a node: memory in MiB by what was sent so far.
struct Seen {
    node: &'static str,
    by_requests: Vec<(usize, f64)>,
    by_clients: Vec<(usize, f64)>,
}

/// Measures the node of this workspace, and `before` if it is given, and draws `picture`.
pub async fn run(before: Option<PathBuf>, picture: &Path) -> Result<()> {
    let mut all = Vec::new();
    if let Some(binary) = before {
        all.push(measure("before", Some(&binary)).await?);
    }
    all.push(measure("now", None).await?);
    report(&all)?;
    draw(picture, &all).with_context(|| format!("drawing {}", picture.display()))
}

async fn measure(name: &'static str, binary: Option<&Path>) -> Result<Seen> {
    let start = async || {
        let builder = Node::builder();
        let builder = binary.map_or(builder.clone(), |binary| builder.binary(binary.to_owned()));
        let node = builder.start().await?;
        // What is kept once for all is there before anything is measured.
        node.client()?.get(PATH).await?.expect_status(200)?;
        anyhow::Ok(node)
    };
    let resident = async |node: &Node| {
        sleep(SETTLED_AFTER).await;
        resident_mib(node.pid().context("the node runs")?)
    };
    let node = start().await?;
    let unread = Unread::http1(name, format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", node.address()));
    let mut by_requests = vec![(0, resident(&node).await?)];
    let mut stream = connect_unread(node.address().parse()?).await?;
    for sent in (REQUESTS_STEP..=REQUESTS).step_by(REQUESTS_STEP) {
        push(&mut stream, &unread.requests(0, REQUESTS_STEP)).await;
        by_requests.push((sent, resident(&node).await?));
    }
    drop(stream);
    node.kill().await?;

    let node = start().await?;
    let unread = Unread::http1(name, format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", node.address()));
    let (mut by_clients, mut held) = (vec![(0, resident(&node).await?)], Vec::new());
    for clients in (CLIENTS_STEP..=CLIENTS).step_by(CLIENTS_STEP) {
        held.extend(unread.hold(node.address().parse()?, CLIENTS_STEP, REQUESTS_EACH).await?);
        by_clients.push((clients, resident(&node).await?));
    }
    drop(held);
    node.kill().await?;
    Ok(Seen { node: name, by_requests, by_clients })
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn report(all: &[Seen]) -> Result<()> {
    println!("{}; GET {PATH}, nothing read\n", described()?);
    println!("| node | at first | 1 client, {REQUESTS} requests | {CLIENTS} clients, {REQUESTS_EACH} requests each |");
    println!("|---|---:|---:|---:|");
    for Seen { node, by_requests, by_clients } in all {
        let value = |point: Option<&(usize, f64)>| point.map_or(0.0, |point| point.1);
        let (first, one, many) = (by_requests.first(), by_requests.last(), by_clients.last());
        println!("| {node} | {:.0} MiB | {:.0} MiB | {:.0} MiB |", value(first), value(one), value(many));
    }
    Ok(())
}

/// Two panels, each with a curve for each node.
fn draw(picture: &Path, all: &[Seen]) -> Result<()> {
    let root = SVGBackend::new(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = [
        (format!("one client that sends GET {PATH} and reads nothing: resident MiB"), "requests", true),
        (format!("clients that send {REQUESTS_EACH} of them each: resident MiB"), "clients", false),
    ];
    for (area, (title, unit, is_first)) in root.split_evenly((panels.len(), 1)).iter().zip(&panels) {
        let curves: Vec<(&str, &[(usize, f64)])> = all
            .iter()
            .map(|seen| (seen.node, if *is_first { &seen.by_requests[..] } else { &seen.by_clients }))
            .collect();
        panel(area, title, unit, &curves)?;
    }
    Ok(root.present()?)
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests and clients are far below 2^52")]
fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    unit: &str,
    curves: &[(&str, &[(usize, f64)])],
) -> Result<()> {
    let points = || curves.iter().flat_map(|(_, points)| points.iter());
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    let last = points().map(|point| point.0).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.1)?;
    let whole = |value: &f64| format!("{value:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().light_line_style(TRANSPARENT).y_labels(6).x_desc(unit);
    mesh.x_label_formatter(&whole).y_label_formatter(&whole).draw()?;
    for ((name, points), colour) in curves.iter().zip([RED, BLUE]) {
        let points = points.iter().map(|(sent, mib)| (*sent as f64, *mib));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    Ok(())
}
