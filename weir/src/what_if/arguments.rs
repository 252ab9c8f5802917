//! The command line of `weir simulate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use weir_hpa::required::Options;
use weir_simulator::ServerProfile;
use weir_what_if::{ModelSize, ReplicaProfile};

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
    /// Seconds to the first token that users are promised; those of the servers unless given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) slo: Option<f64>,
    /// Mean time from asking for a pod to its being ready
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) start: Duration,
    /// Spread of that time: σ of its logarithm, 0 for pods that all take the same
    #[arg(long, default_value_t = 0.25, value_name = "SIGMA")]
    pub(crate) start_spread: f64,
    /// How often the controller decides (its --horizontal-pod-autoscaler-sync-period)
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) sync: Duration,
    /// Replicas at the start; as many as the load needs then
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas: Option<u32>,
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
    /// required_replicas: share of its capacity at which a replica is run, 0.3 to 1
    #[arg(long, default_value_t = Options::default().utilisation, value_name = "SHARE")]
    pub(crate) utilisation: f64,
    /// required_replicas: what was learned before, as it is kept (a value of the ConfigMap weir-learned), instead of what a run with a
    /// step teaches
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cold", "table"])]
    pub(crate) learned: Option<PathBuf>,
    /// required_replicas: nothing was learned before
    #[arg(long)]
    pub(crate) cold: bool,
    /// required_replicas: no picker counts arrivals
    #[arg(long)]
    pub(crate) servers_only: bool,
    /// Write tables and charts to one HTML file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write what came of each policy to one JSON file: totals, and from which second on how many replicas were asked for
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    pub(crate) json: Option<PathBuf>,
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
    /// What `weir simulate-server --profile small` plays: 8 sequences; first token within 2 s
    PlayedSmall,
    /// What `--profile llama8b` plays; first token within 2 s
    PlayedLlama8b,
    /// What `--profile llama70b` plays; first token within 5 s
    PlayedLlama70b,
}

impl SimulatedServers {
    pub(crate) fn size(self) -> ModelSize {
        match self {
            Self::Small => ModelSize::small(),
            Self::Large => ModelSize::large(),
            Self::PlayedSmall => played("small", &ServerProfile::small_demo(), ModelSize::small(), 1),
            Self::PlayedLlama8b => played("llama8b", &ServerProfile::llama_8b_h100(), ModelSize::small(), 1),
            Self::PlayedLlama70b => played("llama70b", &ServerProfile::llama_70b_tp4(), ModelSize::large(), 4),
        }
    }
}

/// The servers of `weir simulate-server` with the requests of `like`. Their steps get slower with what runs, prompts too; here prompts
/// take what they take at half of that.
fn played(name: &'static str, profile: &ServerProfile, like: ModelSize, gpus: u32) -> ModelSize {
    let step = profile.inter_token_latency.as_secs_f64();
    let slower = profile.time_factor_under_load - 1.0;
    let per_sequence = step * slower / f64::from(profile.max_num_seqs.saturating_sub(1).max(1));
    let replica = ReplicaProfile {
        step: step - per_sequence,
        per_sequence,
        per_prompt_token: profile.prefill_time_per_token.as_secs_f64() * (1.0 + slower / 2.0),
        max_sequences: profile.max_num_seqs,
        max_step_tokens: profile.max_num_batched_tokens,
        kv_tokens: u64::from(profile.kv_blocks) * u64::from(profile.block_size),
        gpus,
    };
    ModelSize { name, profile: replica, ..like }
}
