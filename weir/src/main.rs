//! `weir`: measures a pool of model servers once, and serves what it measured to autoscalers, Prometheus and people.
//!
//! This crate only wires rooms together: arguments ([`args`]), then one file per subcommand.

mod args;
mod demo;
mod logging;
mod read;
mod serve;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The demo draws where log lines would go.
    logging::init(&arguments.log, matches!(arguments.command, Command::Demo(_)));
    weir_serving::install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Read(read) => read::run(read).await,
            Command::Exporter(exporter) => serve::exporter(exporter).await,
            Command::Adapter(adapter) => serve::adapter(adapter).await,
            Command::Serve(both) => serve::both(both).await,
            Command::SimulateServer(simulate) => simulate::run(simulate).await,
            Command::Demo(demo) => demo::run(demo).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
