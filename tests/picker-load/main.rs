//! How many requests a picker on one core places, and how fast, beside a bare tonic server with the same messages.
//!
//! Each server runs on core 0, one after the other in turns; this program, which sends what Envoy sends, and the model servers' pages
//! are on core 1. Six messages go up for a small request: the heads of request and response, and of both bodies a piece and an empty
//! one that ends it. Five come down, since a piece of an answer goes on as it comes.
//!
//! - [`messages`], [`prompts`]: what is sent;
//! - [`stream`], [`load`]: one request, and many;
//! - [`bare`], [`servers`], [`tls`]: what is measured, and how it is reached;
//! - [`measure`]: one row of the table.
//!
//! `target/dist/picker-load --help`

mod bare;
mod load;
mod measure;
mod messages;
#[path = "../scale/pages.rs"]
mod pages;
#[path = "../scale/process.rs"]
mod process;
mod prompts;
mod servers;
mod stream;
mod tls;

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use load::Load;
use measure::{Plan, Row};
use stream::Shape;
use weir_tests::Folder;

type Failure = Box<dyn Error + Send + Sync>;

const HELP: &str = "\
Measures `weir epp` on one core beside a bare tonic server.

  picker-load table              every row of docs/benchmarks.md, about ten minutes
  picker-load long               one picker for --minutes 30: its memory, minute by minute
  picker-load                    one row:

  --in-flight 16                 closed load: so many requests at once
  --rate 1000                    in its place an open load: so many a second
  --endpoints 10                 model servers, with a page of 68 KB each
  --prompt 2                     KiB of a request's body
  --shared 50                    percent of the prompts that continue one of 100 conversations
  --piece 16                     KiB of a piece of a request's body
  --chunks 1                     pieces of an answer; the next is sent when one has gone on
  --tls                          TLS, on both servers
  --pages restricted             full: model servers that ignore ?name[]=

Both:

  --weir target/dist/weir        the binary; by default the one beside this program
  --server both                  weir or bare: one of them alone
  --rounds 2                     turns of each server
  --warm-up 2 --window 4         seconds
  --connections 4                of the gateway to the picker
  --seed 1                       of the prompts
  -- ARGUMENTS                   more arguments of weir epp
";

fn main() -> Result<(), Failure> {
    weir_serving::install_crypto_provider();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let extra = arguments.iter().position(|argument| argument == "--").map(|at| arguments.split_off(at)).unwrap_or_default();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let number = |name: &str, default: u64| {
        value(name).map_or(Ok(default), |text| text.parse::<u64>().map_err(|error| format!("{name} {text}: {error}")))
    };
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    weir_tests::allow_many_files();
    match arguments.first().map(String::as_str) {
        Some("pages") => {
            let served = pages::serve(usize::try_from(number("--endpoints", 1)?)?, value("--answers") != Some("full"));
            return served.map_err(|error| error.to_string().into());
        }
        Some("bare") => {
            let destination = value("--destination").ok_or("bare: --destination ADDRESS is missing")?;
            return bare::serve(destination, value("--certificate").map(Path::new));
        }
        _ => {}
    }
    let server = value("--server").unwrap_or("both");
    let plan = Plan {
        weir: match value("--weir") {
            Some(path) => path.into(),
            None => std::env::current_exe()?.with_file_name("weir"),
        },
        extra: extra.into_iter().skip(1).collect(),
        bare: server != "weir",
        picker: server != "bare",
        rounds: usize::try_from(number("--rounds", 2)?)?.max(1),
        warm_up: Duration::from_secs(number("--warm-up", 2)?),
        window: Duration::from_secs(number("--window", 4)?.max(1)),
        connections: usize::try_from(number("--connections", 4)?)?.max(1),
        seed: number("--seed", 1)?,
    };
    let row = Row {
        load: match value("--rate") {
            Some(_) => Load::Open(number("--rate", 1000)?.max(1)),
            None => Load::Closed(usize::try_from(number("--in-flight", 16)?)?.max(1)),
        },
        endpoints: usize::try_from(number("--endpoints", 10)?)?.max(1),
        shape: Shape {
            prompt: usize::try_from(number("--prompt", 2)?)? << 10,
            shared: u8::try_from(number("--shared", 50)?)?,
            piece: usize::try_from(number("--piece", 16)?.max(1))? << 10,
            chunks: usize::try_from(number("--chunks", 1)?)?.max(1),
        },
        tls: arguments.iter().any(|argument| argument == "--tls"),
        restricted: value("--pages") != Some("full"),
    };
    let rows = if arguments.first().is_some_and(|first| first == "table") { table(&row) } else { vec![row] };
    let minutes = number("--minutes", 30)?.max(1);
    pin_self()?;
    let folder = Folder::new("picker-load");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if arguments.first().is_some_and(|first| first == "long") {
            return measure::long(&rows[0], &plan, minutes, &folder.file("")).await;
        }
        measure::print_head();
        for row in &rows {
            measure::measure(row, &plan, &folder.file("")).await?;
        }
        Ok(())
    })
}

/// Every row, each one thing different from `base`.
fn table(base: &Row) -> Vec<Row> {
    let shape = |prompt: usize, chunks: usize| Shape { prompt: prompt << 10, chunks, ..base.shape.clone() };
    let mut rows: Vec<Row> = [16, 1, 64, 256].map(|at_once| Row { load: Load::Closed(at_once), ..base.clone() }).into();
    rows.extend([200, 1000, 5000].map(|rate| Row { load: Load::Open(rate), ..base.clone() }));
    for endpoints in [100, 1000] {
        rows.extend([Load::Closed(16), Load::Open(200)].map(|load| Row { load, endpoints, ..base.clone() }));
    }
    rows.push(Row { endpoints: 100, restricted: false, ..base.clone() });
    rows.extend([(32, 1), (400, 1), (2, 1000)].map(|(prompt, chunks)| Row { shape: shape(prompt, chunks), ..base.clone() }));
    rows.push(Row { load: Load::Open(100), shape: shape(400, 1000), ..base.clone() });
    rows.push(Row { tls: true, ..base.clone() });
    rows.push(Row { tls: true, shape: shape(32, 1), ..base.clone() });
    rows
}

/// Moves this process, which has one thread, away from the core of what is measured.
fn pin_self() -> Result<(), Failure> {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-a", "-p", "-c", servers::OTHER_CORE, &own]).stdout(Stdio::null()).status()?;
    if moved.success() { Ok(()) } else { Err("taskset (util-linux) could not pin this process".into()) }
}
