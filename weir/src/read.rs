//! `weir read`: what weir sees on one metrics page.

use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use weir_collector::{Access, FetchConfig, fetch_page};
use weir_datastore::engine::{PageClock, PageReader, Reading, SeriesUse, SeriesVerdict};
use weir_datastore::page::Format;
use weir_datastore::picker::PickerPageReader;
use weir_datastore::{Combined, EndpointLoad, FRESH_AT_MOST, PickerLoad, UnitLoad, Unused};

use crate::args::{EngineChoice, ReadArguments, ReadOutput};

/// A file larger than this is not a metrics page.
const LARGEST_PAGE: usize = 16 << 20;

/// First bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads the page and prints what is on it.
pub(crate) async fn run(arguments: ReadArguments) -> anyhow::Result<()> {
    let page = get(&arguments).await?;
    let EngineChoice(engine) = arguments.engine;
    let reading = explain(&PageReader::new(engine, &[]), &page).with_context(|| arguments.page.clone())?;
    let picker = match reading.load {
        Some(_) => None,
        None => PickerPageReader::default().read_any(&page.bytes, page.format, Instant::now()).ok(),
    };
    match arguments.output {
        ReadOutput::Table => print!("{}", table(&reading, picker)),
        ReadOutput::Json => println!("{:#}", as_json(&reading, picker)),
    }
    Ok(())
}

/// A page and how it is to be read.
struct Page {
    bytes: Vec<u8>,
    format: Format,
    /// Whether it was written just now: a file may be of any age.
    live: bool,
}

async fn get(arguments: &ReadArguments) -> anyhow::Result<Page> {
    let source = arguments.page.as_str();
    if source.starts_with("http://") || source.starts_with("https://") {
        let access = Access { insecure_skip_verify: arguments.insecure_skip_verify, ..Access::default() };
        let config = FetchConfig { timeout: arguments.timeout, access, ..FetchConfig::default() };
        let fetched = fetch_page(source, &config).await.map_err(|failure| anyhow::anyhow!(failure.message))?;
        return Ok(Page { bytes: fetched.bytes, format: fetched.format, live: true });
    }
    let bytes = if source == "-" {
        read_bounded(std::io::stdin().lock(), "standard input")?
    } else {
        let file = std::fs::File::open(Path::new(source))
            .with_context(|| format!("{source}: cannot be read (a URL begins with http:// or https://)"))?;
        read_bounded(file, source)?
    };
    let bytes = if bytes.starts_with(&GZIP_MAGIC) {
        read_bounded(GzDecoder::new(bytes.as_slice()), source).context("not a whole gzip file")?
    } else {
        bytes
    };
    Ok(Page { bytes, format: Format::Text, live: false })
}

fn read_bounded(source: impl std::io::Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LARGEST_PAGE as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("{name}: cannot be read"))?;
    if bytes.len() > LARGEST_PAGE {
        bail!("{name}: larger than the limit of {} MiB for a page", LARGEST_PAGE >> 20);
    }
    Ok(bytes)
}

/// Reads `page` as of now; a file whose samples carry timestamps as of the newest of them.
fn explain(reader: &PageReader, page: &Page) -> anyhow::Result<Reading> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let stale_after_ms = i64::try_from(FRESH_AT_MOST.as_millis()).unwrap_or(i64::MAX);
    let clock = PageClock { asked_at: Instant::now(), wall_ms: now, stale_after_ms };
    let as_it_is = reader.explain(&page.bytes, page.format, clock)?;
    let newest = as_it_is.series.iter().filter_map(|series| series.timestamp_ms).max();
    match newest {
        Some(newest) if !page.live && newest < now => {
            Ok(reader.explain(&page.bytes, page.format, PageClock { wall_ms: newest, ..clock })?)
        }
        _ => Ok(as_it_is),
    }
}

fn as_json(reading: &Reading, picker: Option<PickerLoad>) -> Value {
    let mut object = Map::new();
    if let Some(picker) = picker {
        object.insert("picker".into(), json!({ "held": picker.held, "arrivals": picker.arrivals }));
    }
    if let Some(load) = &reading.load {
        object.insert("engine".into(), load.engine.name().into());
        let signals = [
            ("running", load.running.map(|signal| signal.value)),
            ("waiting", load.waiting.map(|signal| signal.value)),
            ("kv_cache_utilization", load.kv_cache_utilization.map(|signal| signal.value)),
            ("kv_cache_utilization_max", load.kv_cache_utilization.map(|signal| signal.hottest)),
            ("prompt_tokens", load.counters.prompt_tokens),
            ("generation_tokens", load.counters.generation_tokens),
            ("preemptions", load.counters.preemptions),
            ("prefix_queries", load.counters.prefix_queries),
            ("prefix_hits", load.counters.prefix_hits),
        ];
        object.extend(signals.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))));
        if let Some(lora) = &load.lora {
            object.insert("lora".into(), json!({ "max": lora.max, "running": lora.running, "waiting": lora.waiting }));
        }
        object.insert("units".into(), load.units.iter().map(unit_json).collect());
        let Unused { invalid, duplicates, outdated, dropped_lines: _ } = load.unused;
        object.insert("invalid".into(), invalid.into());
        object.insert("duplicates".into(), duplicates.into());
        object.insert("outdated".into(), outdated.into());
    }
    object.insert("dropped_lines".into(), reading.report.dropped.into());
    let dropped = reading.report.named.iter().map(|dropped| json!({ "line": dropped.line, "reason": dropped.reason.to_string() }));
    object.insert("dropped".into(), dropped.collect());
    object.insert("sample_lines".into(), reading.report.sample_lines.into());
    object.insert("series".into(), reading.series.iter().map(series_json).collect());
    Value::Object(object)
}

fn unit_json(unit: &UnitLoad) -> Value {
    let UnitLoad { model, rank, running, waiting, kv_cache_utilization, api_waiting, max_running, block_size, blocks } = unit;
    let fields = [
        ("model", model.as_ref().map(|model| json!(model))),
        ("rank", rank.as_ref().map(|rank| json!(rank))),
        ("running", running.map(Value::from)),
        ("waiting", waiting.map(Value::from)),
        ("kv_cache_utilization", kv_cache_utilization.map(Value::from)),
        ("api_waiting", api_waiting.map(Value::from)),
        ("max_running", max_running.map(Value::from)),
        ("block_size", block_size.map(Value::from)),
        ("blocks", blocks.map(Value::from)),
    ];
    Value::Object(fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

fn series_json(series: &SeriesUse) -> Value {
    json!({
        "line": series.line,
        "series": series.series,
        // JSON has no NaN and no infinities.
        "value": if series.value.is_finite() { json!(series.value) } else { json!(series.value.to_string()) },
        "signal": series.signal.key(),
        "verdict": series.verdict.label(),
    })
}

fn table(reading: &Reading, picker: Option<PickerLoad>) -> String {
    let mut lines = Vec::new();
    match (&reading.load, picker) {
        (None, Some(picker)) => {
            lines.push("an endpoint picker".to_owned());
            lines.push(String::new());
            let held = picker
                .held
                .map_or_else(|| "nothing: its flow control is off, or held nothing yet".to_owned(), |held| held.to_string());
            lines.push(format!("held      {held}"));
            lines.push(format!("arrivals  {}", picker.arrivals));
        }
        (None, None) => lines.push("engine   unknown: no family of a known engine is on the page".to_owned()),
        (Some(load), _) => signals(load, reading, &mut lines),
    }
    let unused: Vec<_> = reading.series.iter().filter(|series| series.verdict != SeriesVerdict::Used).collect();
    if !unused.is_empty() {
        lines.push(String::new());
        lines.push("not used".to_owned());
        lines.extend(unused.iter().map(|series| {
            format!("  line {}: {} = {} ({})", series.line, printable(&series.series), series.value, series.verdict.label())
        }));
    }
    lines.push(String::new());
    let report = &reading.report;
    lines.push(format!("{} sample lines, {} dropped", report.sample_lines, report.dropped));
    lines.extend(report.named.iter().map(|dropped| format!("  line {}: {}", dropped.line, dropped.reason)));
    let unnamed = report.dropped as usize - report.named.len();
    if unnamed > 0 {
        lines.push(format!("  and {unnamed} more"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn signals(load: &EndpointLoad, reading: &Reading, lines: &mut Vec<String>) {
    lines.push(format!("engine   {}", load.engine));
    lines.push(String::new());
    lines.push(format!("{:<22} {:>14}  {}", "signal", "value", "series"));
    let combined = |signal: Option<Combined>| signal.map(|signal| (signal.value, Some(signal.hottest)));
    let counter = |counter: Option<f64>| counter.map(|value| (value, None));
    for (key, value) in [
        ("running", combined(load.running)),
        ("waiting", combined(load.waiting)),
        ("kv_cache_utilization", combined(load.kv_cache_utilization)),
        ("prompt_tokens", counter(load.counters.prompt_tokens)),
        ("generation_tokens", counter(load.counters.generation_tokens)),
        ("preemptions", counter(load.counters.preemptions)),
        ("prefix_queries", counter(load.counters.prefix_queries)),
        ("prefix_hits", counter(load.counters.prefix_hits)),
    ] {
        let used: Vec<_> =
            reading.series.iter().filter(|series| series.signal.key() == key && series.verdict == SeriesVerdict::Used).collect();
        let shown = value.map_or_else(|| "unknown".to_owned(), |(value, _)| number(value));
        let first = used.first().map_or_else(String::new, |series| printable(&series.series));
        lines.push(format!("{key:<22} {shown:>14}  {first}").trim_end().to_owned());
        lines.extend(used.iter().skip(1).map(|series| format!("{:<38} {}", "", printable(&series.series))));
        if let Some((value, Some(hottest))) = value
            && hottest != value
        {
            lines.push(format!("{:<22} {:>14}  the hottest of {} engines", "", number(hottest), load.units.len()));
        }
    }
    for unit in &load.units {
        if let (Some(block_size), Some(blocks)) = (unit.block_size, unit.blocks) {
            let rank = unit.rank.as_deref().map_or_else(String::new, |rank| format!(" of engine {}", printable(rank)));
            lines.push(format!("KV cache{rank}: {blocks} blocks of {block_size} tokens"));
        }
    }
    if let Some(lora) = &load.lora {
        let names = |names: &[std::sync::Arc<str>]| if names.is_empty() { "none".to_owned() } else { printable(&names.join(", ")) };
        lines.push(format!("LoRA adapters running: {}; waiting: {}", names(&lora.running), names(&lora.waiting)));
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

/// A page is not to move the cursor or colour the screen of who looks at it.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| if character.is_control() { character.escape_default().collect() } else { vec![character] })
        .collect()
}
