//! `weir simulate`: what HorizontalPodAutoscalers would have done with a load.

mod arguments;
mod hpa_file;

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use weir_hpa::required::{Learned, Options};
use weir_hpa::{Behavior, HpaSpec, MetricSpec, Target};
use weir_what_if::table::{EXPIRE, PATIENCE, Plan, cells, false_alarm_markdown, false_alarms, learn, markdown};
use weir_what_if::{
    Load, Metric, ModelSize, Needed, Outcome, Policy, RequiredOptions, Scaler, Scenario, Shape, advice, day_of, draw, run, trace,
};

pub(crate) use arguments::WhatIfArguments;

/// Where the output is no terminal.
const COLUMNS: usize = 100;
/// A built-in HPA may grow to this multiple of what is needed.
const ROOM: u32 = 4;

/// Replays the load and prints what came of it.
pub(crate) fn run_command(arguments: &WhatIfArguments) -> anyhow::Result<()> {
    replay(arguments, &mut std::io::stdout().lock())
}

fn replay(arguments: &WhatIfArguments, out: &mut impl Write) -> anyhow::Result<()> {
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
    let options =
        Options { daily: arguments.daily, recurring: arguments.recurring, spares: arguments.spares, ..Options::default() };
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
    let mut min = u32::from(needed.replicas.first().is_some_and(|first| *first > 0));
    let mut has_required = false;
    for path in paths {
        let spec = hpa_file::read(path)?;
        min = spec.min_replicas;
        has_required |= spec.metrics.iter().any(|metric| Metric::by_name(&metric.name) == Some(Metric::Required));
        policies.push(Policy { name: short(path), scaler: Scaler::Hpa(Box::new(spec), Box::new(required.clone())), expire: None });
    }
    if !has_required {
        let metric = MetricSpec::external("inference_pool_required_replicas", Target::AverageValue(1000));
        let mut spec = HpaSpec::new(min, (ROOM * needed.peak).max(min), vec![metric]);
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn replayed(line: &str) -> anyhow::Result<String> {
        let arguments = Arguments::try_parse_from(["weir", "simulate"].into_iter().chain(line.split_whitespace()))?;
        let Command::Simulate(arguments) = arguments.command else { unreachable!("the subcommand above") };
        let mut out = Vec::new();
        replay(&arguments, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn error(line: &str) -> String {
        format!("{:#}", replayed(line).unwrap_err())
    }

    fn examples(name: &str) -> String {
        format!("{}/../hpa-examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn hpas_stand_side_by_side_with_a_recommendation() {
        let html = std::env::temp_dir().join(format!("weir-what-if-{}.html", std::process::id()));
        let line = format!(
            "--shape to-zero --scale 0.5 --servers 70b --hpa {} --compare {} {} --html {}",
            examples("in-flight"),
            examples("queue"),
            examples("pods"),
            html.display()
        );
        let text = replayed(&line).unwrap();
        for expected in ["in-flight", "queue", "pods", "required_replicas", "static peak", "clairvoyant", "Take ", "TTFT p95"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let page = std::fs::read_to_string(&html).unwrap();
        std::fs::remove_file(&html).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(!page.contains("http") && !page.contains("<script"), "a page that loads nothing");
        assert!(!page.contains("NaN"), "{page}");
    }

    #[test]
    fn a_trace_is_replayed() {
        let path = std::env::temp_dir().join(format!("weir-what-if-{}.csv", std::process::id()));
        let lines: Vec<String> = (0..1200).map(|index| format!("{},500,100", f64::from(index) / 2.0)).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let text = replayed(&format!("--trace {} --cold", path.display())).unwrap();
        std::fs::write(&path, "0,1,1\nx").unwrap();
        let broken = error(&format!("--trace {}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("1200 requests in 11 min"), "{text}");
        assert!(broken.ends_with("line 2: 1 columns, expected 3: seconds,prompt_tokens,output_tokens"), "{broken}");
    }

    #[test]
    fn what_cannot_be_simulated_is_said() {
        assert_eq!(error("--shape steep"), format!("--shape is steep, expected one of {}", Shape::ALL.map(Shape::name).join(", ")));
        assert_eq!(error(""), "say what arrives: --trace FILE or --shape NAME (or --table)");
        assert!(error("--shape step --start 0s").starts_with("--start is 0 s"));
        assert!(error("--shape step --scale inf").starts_with("--scale is inf"));
        assert!(error("--shape step --hpa /nowhere.yaml").starts_with("/nowhere.yaml: "));
        assert!(error("--shape step --trace t").contains("cannot be used with"));
    }
}
