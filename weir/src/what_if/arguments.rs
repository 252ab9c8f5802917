//! The command line of `weir simulate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use weir_what_if::ModelSize;

#[derive(Debug, Args)]
pub(crate) struct WhatIfArguments {
    /// The load: a line per request, seconds,prompt_tokens,output_tokens
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shape", "table"])]
    pub(crate) trace: Option<PathBuf>,
    /// The load by name: step, ramp, diurnal, bursts, flash, long-prompts, from-zero, to-zero
    #[arg(long, value_name = "NAME", conflicts_with = "table")]
    pub(crate) shape: Option<String>,
    /// The HorizontalPodAutoscaler (autoscaling/v2) to try
    #[arg(long, value_name = "FILE")]
    pub(crate) hpa: Vec<PathBuf>,
    /// Further HPAs, side by side with it
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) compare: Vec<PathBuf>,
    /// The servers
    #[arg(long, default_value = "8b")]
    pub(crate) servers: SimulatedServers,
    /// Mean time from asking for a pod to its being ready
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) start: Duration,
    /// How many times as many requests a shape has; its own sizes are 1 to 10 full servers
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", conflicts_with = "trace")]
    pub(crate) scale: f64,
    /// A picker holds requests while all servers are full, and refuses what has waited for three quarters of the service level
    #[arg(long)]
    pub(crate) expire_held: bool,
    /// required_replicas: two days before were like this one
    #[arg(long, conflicts_with_all = ["trace", "cold"])]
    pub(crate) daily: bool,
    /// required_replicas: keep the level of bursts that come again and again
    #[arg(long)]
    pub(crate) recurring: bool,
    /// required_replicas: replicas asked for on top
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) spares: u32,
    /// required_replicas: nothing was learned before
    #[arg(long)]
    pub(crate) cold: bool,
    /// required_replicas: no picker counts arrivals
    #[arg(long)]
    pub(crate) servers_only: bool,
    /// Write tables and charts to one HTML file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the table of docs/scaling.md instead: every policy, shape, start time and size (minutes)
    #[arg(long, conflicts_with_all = ["hpa", "compare", "html"])]
    pub(crate) table: bool,
    /// Seeds of the table
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    pub(crate) seeds: u64,
    /// Seed of the random draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Servers that are simulated.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SimulatedServers {
    /// An 8B model on one H100: 22.5 requests a second of 512 + 200 tokens, first token within 2 s
    #[value(name = "8b")]
    Small,
    /// A 70B model on four H100: 4.5 requests a second of 1,024 + 400 tokens, first token within 5 s
    #[value(name = "70b")]
    Large,
}

impl SimulatedServers {
    pub(crate) fn size(self) -> ModelSize {
        match self {
            Self::Small => ModelSize::small(),
            Self::Large => ModelSize::large(),
        }
    }
}
