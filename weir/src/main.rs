//! `weir`: measures a pool of model servers once, and serves what it measured to autoscalers, Prometheus and people.
//!
//! This crate only wires rooms together: arguments ([`args`]), then one file per subcommand.

mod args;
mod deletion_cost;
mod demo;
mod epp;
mod logging;
mod process;
mod read;
mod scaler;
mod serve;
mod simulate;
mod what_if;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

/// Every endpoint and every caller is a descriptor, and systems start programs with a low limit that each may raise to the high one.
fn allow_many_descriptors() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(epp::command_line(std::env::args_os()));
    // The demo draws where log lines would go.
    logging::init(&arguments.log, matches!(arguments.command, Command::Demo(_)));
    weir_serving::install_crypto_provider();
    allow_many_descriptors();
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
            Command::Epp(picker) => epp::run(picker).await,
            Command::Serve(both) => serve::both(both).await,
            Command::Scaler(scaler) => scaler::run(scaler).await,
            Command::DeletionCost(cost) => deletion_cost::run(cost).await,
            Command::Simulate(what_if) => what_if::run_command(&what_if),
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
