//! `weir simulate`: what HorizontalPodAutoscalers would have done with a load.

mod hpa_file;

use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use weir_hpa::required::{Learned, Options};
use weir_hpa::{Behavior, HpaSpec, MetricSpec, Target};
use weir_what_if::table::{EXPIRE, PATIENCE, Plan, cells, false_alarm_markdown, false_alarms, learn, markdown};
use weir_what_if::{
    Load, Metric, ModelSize, Needed, Outcome, Policy, RequiredOptions, Scaler, Scenario, Shape, advice, day_of, draw, run, trace,
};

use crate::args::WhatIfArguments;

/// Where the output is no terminal.
const COLUMNS: usize = 100;
/// A built-in HPA may grow to this multiple of what is needed.
const ROOM: u32 = 4;

/// Replays the load and prints what came of it.
pub(crate) fn run_command(arguments: &WhatIfArguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.table {
        ensure!((1..=100).contains(&arguments.seeds), "--seeds is {}, expected 1 to 100", arguments.seeds);
        let plan = Plan { seeds: arguments.seeds, ..Plan::default() };
        write!(out, "{}", markdown(&plan, &cells(&plan)?))?;
        write!(out, "{}", false_alarm_markdown(&false_alarms(plan.seeds)?))?;
        return Ok(());
    }
    let start = arguments.start.as_secs_f64();
    ensure!((1.0..=3600.0).contains(&start), "--start is {start} s, expected 1s to 1h");
    ensure!((0.01..=100.0).contains(&arguments.scale), "--scale is {}, expected 0.01 to 100", arguments.scale);
    let size = arguments.servers.size();
    let load = load_of(arguments, &size)?;
    let needed = Needed::of(&load, &size);
    let scenario = Scenario { size: &size, load: &load, start, patience: PATIENCE, seed: arguments.seed };
    let required = required_options(arguments, &size, start)?;

    let plain = |name: &str, scaler: Scaler| Policy { name: name.to_owned(), scaler, expire: None };
    let static_peak = run(&scenario, &plain("static peak", Scaler::StaticPeak), &needed)?;
    let clairvoyant = run(&scenario, &plain("clairvoyant", Scaler::Clairvoyant), &needed)?;
    let expire = arguments.expire_held.then_some(EXPIRE);
    let mut outcomes = Vec::new();
    for policy in policies(arguments, &required, &needed)? {
        let policy = Policy { expire, ..policy };
        outcomes.push(run(&scenario, &policy, &needed).with_context(|| policy.name.clone())?);
    }

    let advice = advice::recommend(&outcomes, &static_peak, &clairvoyant);
    let mut all: Vec<&Outcome> = vec![&static_peak, &clairvoyant];
    all.extend(&outcomes);
    let title = format!(
        "{}: {} requests in {:.0} min, {} servers that start in {:.0} s, first token within {} s",
        load.name,
        load.arrivals.len(),
        load.seconds / 60.0,
        size.name,
        start,
        size.slo
    );
    writeln!(out, "{title}\n")?;
    let width = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| usize::from(width.0));
    for outcome in &outcomes {
        writeln!(out, "{}", draw::chart(outcome, width))?;
    }
    writeln!(out, "{}\n{advice}", draw::summary(&all))?;
    if let Some(path) = &arguments.html {
        std::fs::write(path, draw::html(&title, &all, &advice)).with_context(|| path.display().to_string())?;
        writeln!(out, "\nwritten: {}", path.display())?;
    }
    Ok(())
}

fn load_of(arguments: &WhatIfArguments, size: &ModelSize) -> anyhow::Result<Load> {
    match (&arguments.trace, &arguments.shape) {
        (Some(path), _) => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).with_context(|| name.clone())?;
            trace::read(&name, BufReader::new(file)).with_context(|| name.clone())
        }
        (None, Some(name)) => Ok(shape_of(name)?.draw(size, arguments.scale, arguments.seed)),
        (None, None) => bail!("say what arrives: --trace FILE or --shape NAME (or --table)"),
    }
}

fn shape_of(name: &str) -> anyhow::Result<Shape> {
    let known = || Shape::ALL.map(Shape::name).join(", ");
    Shape::by_name(name).with_context(|| format!("--shape is {}, expected one of {}", name.escape_debug(), known()))
}

/// How `inference_pool_required_replicas` is computed: with what a run with a step teaches, unless it is to begin cold.
fn required_options(arguments: &WhatIfArguments, size: &ModelSize, start: f64) -> anyhow::Result<RequiredOptions> {
    let options = Options { daily: arguments.daily, spares: arguments.spares, ..Options::default() };
    let mut learned: Option<Learned> = if arguments.cold { None } else { Some(learn(size, start)?) };
    if let (true, Some(name), Some(learned)) = (arguments.daily, &arguments.shape, &mut learned) {
        let shape = shape_of(name)?;
        let day = |ago: u64| day_of(&shape.draw(size, arguments.scale, arguments.seed + 1000 * ago), ago);
        learned.days = vec![day(2), day(1)];
    }
    Ok(RequiredOptions { options, servers_only: arguments.servers_only, learned })
}

/// The HPAs of the files, and one on the required replicas unless a file has it.
fn policies(arguments: &WhatIfArguments, required: &RequiredOptions, needed: &Needed) -> anyhow::Result<Vec<Policy>> {
    let paths: Vec<&PathBuf> = arguments.hpa.iter().chain(&arguments.compare).collect();
    ensure!(paths.len() <= 16, "{} files of HPAs, expected 16 at most", paths.len());
    let mut policies = Vec::new();
    let (mut min, mut max) = (u32::from(needed.replicas.first().is_some_and(|first| *first > 0)), ROOM * needed.peak);
    let mut has_required = false;
    for path in paths {
        let spec = hpa_file::read(path)?;
        (min, max) = (spec.min_replicas, spec.max_replicas);
        has_required |= spec.metrics.iter().any(|metric| Metric::by_name(&metric.name) == Some(Metric::Required));
        policies.push(Policy { name: short(path), scaler: Scaler::Hpa(Box::new(spec), Box::new(required.clone())), expire: None });
    }
    if !has_required {
        let metric = MetricSpec::external("inference_pool_required_replicas", Target::AverageValue(1000));
        let mut spec = HpaSpec::new(min, max, vec![metric]);
        spec.behavior = Some(Behavior::default());
        policies.push(Policy {
            name: "required_replicas".to_owned(),
            scaler: Scaler::Hpa(Box::new(spec), Box::new(required.clone())),
            expire: None,
        });
    }
    Ok(policies)
}

fn short(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}
