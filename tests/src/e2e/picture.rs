//! An autoscaling run as a picture: load, latency and nodes over time, one below the other.
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

/// The picture's name.
pub const FILE: &str = "autoscaling.svg";
const SIZE: (u32, u32) = (900, 720);

/// What is drawn. Times are seconds since 1970.
#[derive(Debug)]
pub struct Run {
    /// When the load grew.
    pub step: i64,
    /// When it shrank again.
    pub end: i64,
    /// What the 99th percentile is to be under, in milliseconds.
    pub target_ms: u64,
    /// Of each second: how many requests, and the 99th percentile in milliseconds.
    pub seconds: BTreeMap<i64, (u64, u64)>,
    /// How many nodes were asked for.
    pub nodes: BTreeMap<i64, usize>,
}

/// One of the curves.
struct Panel<'a> {
    title: &'a str,
    points: Vec<(f64, f64)>,
    /// A value to compare with.
    limit: Option<f64>,
    /// About how many values are named.
    ticks: usize,
    colour: RGBColor,
}

/// Draws it.
pub fn draw(file: &Path, run: &Run) -> Result<()> {
    let begin = run.seconds.keys().next().copied().context("there is something to draw")?;
    #[expect(clippy::cast_precision_loss, reason = "seconds of a run, requests and milliseconds are far below 2^52")]
    let since = |at: i64| (at - begin) as f64;
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let panels = {
        let of_seconds = |value: fn(&(u64, u64)) -> u64| {
            run.seconds.iter().map(|(at, each)| (since(*at), value(each) as f64)).collect()
        };
        [
            Panel {
                title: "requests a second",
                points: of_seconds(|each| each.0),
                limit: None,
                ticks: 6,
                colour: BLUE,
            },
            Panel {
                title: "99th percentile of their latency in each second, ms, and its target",
                points: of_seconds(|each| each.1),
                limit: Some(run.target_ms as f64),
                ticks: 6,
                colour: RED,
            },
            Panel {
                title: "nodes",
                points: run
                    .nodes
                    .iter()
                    .filter(|(at, _)| **at >= begin)
                    .map(|(at, nodes)| (since(*at), *nodes as f64))
                    .collect(),
                limit: None,
                // Whole ones alone.
                ticks: run.nodes.values().copied().max().unwrap_or(1) + 1,
                colour: GREEN,
            },
        ]
    };
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(anyhow::Error::from).and_then(|()| {
        let last = panels.iter().flat_map(|panel| &panel.points).map(|point| point.0).fold(0.0, f64::max);
        let marks = [since(run.step), since(run.end)];
        let mut areas = root.split_evenly((panels.len(), 1)).into_iter().zip(&panels);
        areas.try_for_each(|(area, panel)| curve(&area, panel, 0.0..last, marks))
    });
    drawn.and_then(|()| Ok(root.present()?)).with_context(|| format!("drawing {}", file.display()))
}

fn curve(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    panel: &Panel<'_>,
    times: Range<f64>,
    marks: [f64; 2],
) -> Result<()> {
    let highest = panel.points.iter().map(|point| point.1).chain(panel.limit).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(times.clone(), 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(panel.ticks)
        .x_desc("seconds")
        .x_label_formatter(&|value| whole(*value))
        .y_label_formatter(&|value| whole(*value))
        .draw()?;
    chart.draw_series(LineSeries::new(panel.points.iter().copied(), panel.colour.stroke_width(2)))?;
    for mark in marks {
        chart.draw_series(LineSeries::new([(mark, 0.0), (mark, highest * 1.1)], BLACK.mix(0.3)))?;
    }
    if let Some(limit) = panel.limit {
        chart.draw_series(LineSeries::new([(times.start, limit), (times.end, limit)], BLACK.stroke_width(1)))?;
    }
    Ok(())
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}
