//! `weir simulate`: what HorizontalPodAutoscalers would have done with a load.

mod arguments;
mod hpa_file;
mod json;

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use weir_hpa::required::{Learned, Options};
use weir_hpa::{Behavior, HpaSpec, MetricSpec, Target};
use weir_what_if::table::{EXPIRE, Plan, cells, false_alarm_markdown, false_alarms, learn, markdown};
use weir_what_if::{
    Load, Metric, ModelSize, Needed, Outcome, Policy, RequiredOptions, Scaler, Scenario, Shape, advice, day_of, draw, run, trace,
};

pub(crate) use arguments::WhatIfArguments;

/// Where the output is no terminal.
const COLUMNS: usize = 100;
/// More pods than that no test of an HPA begins with.
const MOST_AT_START: u32 = 1000;
/// Three days take 20 KB.
const LARGEST_LEARNED: u64 = 1 << 20;
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
    ensure!((0.0..=1.0).contains(&arguments.start_spread), "--start-spread is {}, expected 0 to 1", arguments.start_spread);
    let sync = arguments.sync.as_secs();
    ensure!(
        (1..=300).contains(&sync) && arguments.sync.subsec_nanos() == 0,
        "--sync is {:?}, expected whole seconds from 1s to 5m",
        arguments.sync
    );
    ensure!(arguments.replicas.is_none_or(|replicas| replicas <= MOST_AT_START), "--replicas: {MOST_AT_START} at most");
    ensure!((0.3..=1.0).contains(&arguments.utilisation), "--utilisation is {}, expected 0.3 to 1", arguments.utilisation);
    let mut size = arguments.servers.size();
    if let Some(slo) = arguments.slo {
        ensure!((0.01..=600.0).contains(&slo), "--slo is {slo} s, expected 0.01 to 600");
        size.slo = slo;
    }
    let load = load_of(arguments, &size)?;
    let needed = Needed::of(&load, &size);
    let scenario = Scenario {
        start_spread: arguments.start_spread,
        sync,
        at_start: arguments.replicas,
        ..Scenario::new(&size, &load, start, arguments.seed)
    };
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
    if let Some(path) = &arguments.json {
        std::fs::write(path, json::of(&title, &all)?).with_context(|| path.display().to_string())?;
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
    let options = Options {
        daily: arguments.daily,
        recurring: arguments.recurring,
        spares: arguments.spares,
        utilisation: arguments.utilisation,
    };
    let mut learned: Option<Learned> = match &arguments.learned {
        _ if arguments.cold => None,
        Some(path) => Some(kept(path)?),
        None => Some(learn(size, start)?),
    };
    if let (true, Some(name), Some(learned)) = (arguments.daily, &arguments.shape, &mut learned) {
        let shape = shape_of(name)?;
        let day = |ago: u64| day_of(&shape.draw(size, arguments.scale, arguments.seed + 1000 * ago), ago);
        learned.days = vec![day(2), day(1)];
    }
    Ok(RequiredOptions { options, servers_only: arguments.servers_only, learned })
}

/// What was learned of real servers.
fn kept(path: &Path) -> anyhow::Result<Learned> {
    let name = || path.display().to_string();
    let length = std::fs::metadata(path).with_context(name)?.len();
    ensure!(length <= LARGEST_LEARNED, "{}: {length} bytes, more than what is learned of a pool ever has", name());
    let text = std::fs::read_to_string(path).with_context(name)?;
    let learned: Learned = serde_json::from_str(&text).with_context(|| {
        format!("{}: expected one value of the ConfigMap weir-learned, as {{\"version\":1,\"fingerprint\":…}}", name())
    })?;
    learned.check(&learned.fingerprint).with_context(name)?;
    Ok(learned)
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
    fn what_was_learned_elsewhere_is_taken_and_each_step_is_written() {
        let folder = std::env::temp_dir().join(format!("weir-what-if-{}-learned", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (learned, json) = (folder.join("learned.json"), folder.join("out.json"));
        // A request of 500 + 100 tokens takes a third of a second: three a second need a replica and a bit.
        let document = r#"{"version":1,"fingerprint":"vllm:x","secondsPerPromptToken":0.0002,"secondsPerGeneratedToken":0.0023,"samples":9,
            "busySeconds":90,"healthyTokensPerSecond":0,"startSeconds":20,"starts":9,"promptTokens":500,"outputTokens":100,"days":[]}"#;
        std::fs::write(&learned, document).unwrap();
        let trace = folder.join("trace.csv");
        let lines: Vec<String> = (0..900).map(|index| format!("{},500,100", f64::from(index) / 3.0)).collect();
        std::fs::write(&trace, lines.join("\n")).unwrap();
        let line = |more: &str| {
            format!("--trace {} --servers played-small --start 20s --start-spread 0 --sync 2s --replicas 1 {more}", trace.display())
        };
        let with = replayed(&line(&format!("--learned {} --json {}", learned.display(), json.display())));
        let text = std::fs::read_to_string(&json).unwrap();
        std::fs::write(&learned, "{\"version\":1}").unwrap();
        let broken = error(&line(&format!("--learned {}", learned.display())));
        std::fs::remove_dir_all(&folder).unwrap();
        with.unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let policies = written["policies"].as_array().unwrap();
        let required = policies.iter().find(|policy| policy["name"] == "required_replicas").unwrap();
        assert_eq!(
            (&required["steps"][0][0], &required["steps"][0][1], &required["steps"][1][1]),
            (&0.into(), &1.into(), &2.into())
        );
        assert!(required["steps"][1][0].as_u64().unwrap() < 30 && required["inSlo"].as_f64().unwrap() > 0.5, "{required}");
        assert!(broken.contains("expected one value of the ConfigMap weir-learned"), "{broken}");
    }

    #[test]
    fn what_cannot_be_simulated_is_said() {
        assert_eq!(error("--shape steep"), format!("--shape is steep, expected one of {}", Shape::ALL.map(Shape::name).join(", ")));
        assert_eq!(error(""), "say what arrives: --trace FILE or --shape NAME (or --table)");
        assert!(error("--shape step --start 0s").starts_with("--start is 0 s"));
        assert!(error("--shape step --sync 1500ms").starts_with("--sync is 1.5s"));
        assert!(error("--shape step --start-spread=-1").starts_with("--start-spread is -1"));
        assert!(error("--shape step --utilisation 2").starts_with("--utilisation is 2"));
        assert!(error("--shape step --slo 0").starts_with("--slo is 0 s"));
        assert!(error("--shape step --scale inf").starts_with("--scale is inf"));
        assert!(error("--shape step --hpa /nowhere.yaml").starts_with("/nowhere.yaml: "));
        assert!(error("--shape step --trace t").contains("cannot be used with"));
    }
}
