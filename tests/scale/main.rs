//! What scraping costs: `weir exporter` beside a *bare scraper*, a loop per endpoint over reqwest that reads each page and throws it
//! away. Both read the same page server, one after the other.
//!
//! - [`pages`]: the page server, N endpoints in one process, on core 1;
//! - [`bare`]: the bare scraper, on core 0;
//! - [`measure`]: starts them and weir, and prints a table.
//!
//! `cargo run --release -p weir-tests --bin scale -- --help`

mod bare;
mod measure;
mod pages;
mod process;

use std::error::Error;
use std::time::Duration;

use measure::{Answers, Plan};

const HELP: &str = "\
Measures what scraping costs and prints a table.

  --endpoints 10,100,1000        how many endpoints
  --intervals 50,1000            milliseconds between two reads of an endpoint
  --answers full,restricted      whether the page server honours ?name[]=
  --repeat 2                     measurements of each; the median is shown
  --warm-up 4                    seconds before each measurement
  --window 10                    seconds of each measurement
  --weir target/release/weir     the binary to measure; without it weir is built
";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let number = |name: &str, default: u64| value(name).map_or(Ok(default), str::parse::<u64>);
    let list = |name: &str, default: &str| -> Result<Vec<u64>, std::num::ParseIntError> {
        value(name).unwrap_or(default).split(',').map(str::parse).collect()
    };
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    weir_tests::allow_many_files();
    match arguments.first().map(String::as_str) {
        Some("pages") => pages::serve(usize::try_from(number("--endpoints", 1)?)?, value("--answers") != Some("full")),
        Some("bare") => {
            let addresses = std::fs::read_to_string(value("--addresses").ok_or("bare: --addresses FILE is missing")?)?;
            let interval = Duration::from_millis(number("--interval", 1000)?);
            bare::scrape(addresses.lines().map(str::to_owned).collect(), value("--query").unwrap_or_default(), interval)
        }
        _ => {
            let answers =
                value("--answers").unwrap_or("full,restricted").split(',').map(Answers::parse).collect::<Result<_, _>>()?;
            measure::run(&Plan {
                weir: value("--weir").map(Into::into),
                endpoints: list("--endpoints", "10,100,1000")?,
                intervals: list("--intervals", "50,1000")?.into_iter().map(Duration::from_millis).collect(),
                answers,
                repeat: number("--repeat", 2)?,
                warm_up: Duration::from_secs(number("--warm-up", 4)?),
                window: Duration::from_secs(number("--window", 10)?),
            })
        }
    }
}
