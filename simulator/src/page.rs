//! The metrics page an engine would show of a replica.

use std::time::Duration;

mod sglang;
#[cfg(test)]
mod tests;
mod text;
mod trtllm;
mod vllm;
mod vllm_process;

use crate::model::{Bounds, Iteration, ModelView};
use text::PageWriter;
pub use text::format_value;
pub use vllm_process::{HttpExchange, HttpStatistics};

/// Which model server a replica pretends to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// vLLM 0.29.
    #[default]
    Vllm,
    /// SGLang 0.5.20.
    Sglang,
    /// TensorRT-LLM 1.2 (`trtllm-serve`).
    Trtllm,
}

impl Engine {
    /// Names [`std::str::FromStr`] knows.
    pub const NAMES: [&'static str; 3] = ["vllm", "sglang", "trtllm"];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Trtllm => "trtllm",
        }
    }

    /// The release whose page and answers are imitated.
    pub fn version(self) -> &'static str {
        match self {
            Self::Vllm => "0.29.0",
            Self::Sglang => "0.5.20",
            Self::Trtllm => "1.2.0",
        }
    }

    /// Where it serves its Prometheus page.
    pub fn metrics_path(self) -> &'static str {
        match self {
            Self::Vllm | Self::Sglang => "/metrics",
            Self::Trtllm => "/prometheus/metrics",
        }
    }

    /// The histogram bounds of its page, for [`crate::Model::new`].
    pub fn bounds(self, max_model_len: u32) -> Bounds {
        match self {
            Self::Vllm => Bounds::vllm(max_model_len),
            Self::Sglang => Bounds::sglang(max_model_len),
            Self::Trtllm => Bounds::trtllm(max_model_len),
        }
    }
}

impl std::str::FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        match name {
            "vllm" => Ok(Self::Vllm),
            "sglang" => Ok(Self::Sglang),
            "trtllm" => Ok(Self::Trtllm),
            _ => Err(UnknownEngine { name: name.to_owned() }),
        }
    }
}

/// An engine name that is not one of [`Engine::NAMES`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown engine {name:?}: the simulator plays vllm, sglang and trtllm")]
pub struct UnknownEngine {
    name: String,
}

/// What a page is made of.
#[derive(Clone, Debug)]
pub struct PageInput<'a> {
    /// The replica.
    pub view: &'a ModelView,
    /// The served model name.
    pub model_name: &'a str,
    /// Time since the replica's start.
    pub now: Duration,
    /// Its start, since the Unix epoch.
    pub started_at: Duration,
    /// Requests answered over HTTP (vLLM's page shows them).
    pub http: &'a HttpStatistics,
    /// Pads a full page with filler series to at least this many bytes.
    pub pad_to: usize,
}

/// The page of `engine`. With `names`, only the series with exactly those sample names, as prometheus_client's `?name[]=` does in one
/// process; SGLang and TensorRT-LLM run it over several, where any restriction finds nothing.
pub fn render(engine: Engine, input: &PageInput<'_>, names: &[String]) -> String {
    let mut writer = PageWriter::new(names);
    match engine {
        Engine::Vllm => {
            vllm_process::render_process(&mut writer, input);
            vllm::render(&mut writer, input);
            vllm_process::render_http(&mut writer, input.http, input.started_at);
        }
        Engine::Sglang | Engine::Trtllm if !names.is_empty() => return String::new(),
        Engine::Sglang => sglang::render(&mut writer, input),
        Engine::Trtllm => trtllm::render(&mut writer, input),
    }
    if names.is_empty() {
        writer.pad_to(input.pad_to);
    }
    writer.finish()
}

/// One entry of the JSON list `trtllm-serve` answers at `/metrics`.
pub fn trtllm_iteration(iteration: &Iteration, view: &ModelView) -> serde_json::Value {
    trtllm::iteration_json(iteration, view)
}
