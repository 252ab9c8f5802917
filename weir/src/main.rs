//! `weir`: measures a pool of model servers once, and serves what it measured to autoscalers, Prometheus and people.
//!
//! This crate only wires rooms together: arguments ([`args`]), then one file per subcommand.

mod args;
mod bbr;
mod deletion_cost;
mod demo;
mod doctor;
mod epp;
mod go_flags;
mod logging;
mod metrics_server;
mod names;
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

/// The command line as weir's own arguments.
fn command_line() -> Vec<std::ffi::OsString> {
    let arguments = doctor::command_line(std::env::args_os()).collect();
    [epp::program(), bbr::program()].into_iter().fold(arguments, |arguments, program| program.command_line(arguments))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(command_line());
    // The demo draws where log lines would go, and the doctor tells.
    logging::init(&arguments.log, matches!(arguments.command, Command::Demo(_) | Command::Doctor(_) | Command::Explain(_)));
    weir_serving::install_crypto_provider();
    allow_many_descriptors();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome: anyhow::Result<ExitCode> = runtime.block_on(async {
        match arguments.command {
            Command::Doctor(doctor) => return Ok(doctor::run(doctor).await),
            Command::Explain(explain) => doctor::explain(explain).await,
            Command::Read(read) => read::run(read).await,
            Command::Exporter(exporter) => serve::exporter(exporter).await,
            Command::Adapter(adapter) => serve::adapter(adapter).await,
            Command::Epp(picker) => epp::run(picker).await,
            Command::Bbr(router) => bbr::run(router).await,
            Command::Names(names) => names::run(names),
            Command::Serve(both) => serve::both(both).await,
            Command::Scaler(scaler) => scaler::run(scaler).await,
            Command::DeletionCost(cost) => deletion_cost::run(cost).await,
            Command::Simulate(what_if) => what_if::run_command(&what_if),
            Command::SimulateServer(simulate) => simulate::run(simulate).await,
            Command::Demo(demo) => demo::run(demo).await,
        }?;
        Ok(ExitCode::SUCCESS)
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
