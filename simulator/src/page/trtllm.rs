//! TensorRT-LLM 1.2's Prometheus page, and the JSON it serves at `/metrics`.

use serde_json::json;

use super::PageInput;
use super::text::{Labels, Layout, PageWriter};
use crate::model::{Iteration, ModelView};

const LAYOUT: Layout = Layout::ManyProcesses;
const ENGINE_TYPE: (&str, &str) = ("engine_type", "undefined");
/// Every gauge carries the id of the process that set it.
const WORKER_PID: (&str, &str) = ("pid", "188");
/// Memory of a worker with its engine loaded, in bytes.
const GPU_MEMORY: f64 = 134_217_728_000.0;
const CPU_MEMORY: f64 = 8_589_934_592.0;
const PINNED_MEMORY: f64 = 67_108_864.0;

pub(super) fn render(writer: &mut PageWriter<'_>, input: &PageInput<'_>) {
    let model = ("model_name", input.model_name);
    histograms(writer, input, &[ENGINE_TYPE, model]);
    load_gauges(writer, input.view, &[ENGINE_TYPE, model, WORKER_PID]);
    size_gauges(writer, input.view, &[ENGINE_TYPE, model, WORKER_PID]);
    let page_size = input.view.profile.block_size.to_string();
    let reuse = if input.view.profile.prefix_cache_blocks > 0 { "True" } else { "False" };
    let config = [("dtype", "fp8"), ("enable_block_reuse", reuse), ENGINE_TYPE, model, ("page_size", &page_size), WORKER_PID];
    writer.gauge("trtllm_kv_cache_config_info", "The KV cache's configuration, as labels", &[(&config, 1.0)]);
    counters(writer, input, model);
}

fn histograms(writer: &mut PageWriter<'_>, input: &PageInput<'_>, labels: Labels<'_>) {
    let statistics = &input.view.statistics;
    let [blocking, streaming] = &statistics.end_to_end;
    let end_to_end = blocking.merged(streaming);
    let [blocking, streaming] = &statistics.time_to_first_token;
    let first_token = blocking.merged(streaming);
    for (name, help, histogram) in [
        ("trtllm_e2e_request_latency_seconds", "Seconds from arrival to end.", &end_to_end),
        ("trtllm_time_to_first_token_seconds", "Seconds to the first token.", &first_token),
        (
            "trtllm_time_per_output_token_seconds",
            "Mean seconds per output token after the first.",
            &statistics.time_per_output_token,
        ),
        ("trtllm_request_queue_time_seconds", "Seconds a request spent WAITING.", &statistics.queue),
        ("trtllm_request_prefill_time_seconds", "Seconds from first being scheduled to the first token.", &statistics.prefill),
        ("trtllm_request_decode_time_seconds", "Seconds from the first token to the last.", &statistics.decode),
        ("trtllm_request_inference_time_seconds", "Seconds from first being scheduled to the last token.", &statistics.inference),
        (
            "trtllm_prompt_cached_tokens_per_request",
            "Prompt tokens of a request found in the cache.",
            &statistics.request_cached_tokens,
        ),
    ] {
        writer.histogram(name, help, LAYOUT, &[(labels, histogram)]);
    }
}

fn gauges(writer: &mut PageWriter<'_>, labels: Labels<'_>, gauges: &[(&str, &str, f64)]) {
    for (name, help, value) in gauges {
        writer.gauge(name, help, &[(labels, *value)]);
    }
}

fn load_gauges(writer: &mut PageWriter<'_>, view: &ModelView, labels: Labels<'_>) {
    let statistics = &view.statistics;
    let hit_rate =
        if statistics.prefix_queries == 0 { 0.0 } else { statistics.prefix_hits as f64 / statistics.prefix_queries as f64 };
    gauges(
        writer,
        labels,
        &[
            ("trtllm_kv_cache_hit_rate", "Share of KV cache lookups that hit, since the start", hit_rate),
            ("trtllm_kv_cache_utilization", "Share of the KV cache blocks in use", view.kv_cache_usage),
            ("trtllm_kv_cache_host_utilization", "Share of the host pool's blocks in use", 0.0),
            ("trtllm_kv_cache_iter_reuse_rate", "Share of blocks reused in the last iteration", hit_rate),
            ("trtllm_num_requests_running", "Requests running", f64::from(view.running)),
            ("trtllm_num_requests_waiting", "Requests waiting", f64::from(view.waiting)),
            ("trtllm_max_num_active_requests", "Most requests that may run", f64::from(view.profile.max_num_seqs)),
            ("trtllm_iteration_latency_seconds", "Seconds the last iteration took", view.last_step.duration.as_secs_f64()),
            ("trtllm_gpu_memory_usage_bytes", "GPU memory in use in bytes", GPU_MEMORY),
            ("trtllm_cpu_memory_usage_bytes", "CPU memory in use in bytes", CPU_MEMORY),
            ("trtllm_pinned_memory_usage_bytes", "Pinned memory in use in bytes", PINNED_MEMORY),
        ],
    );
}

fn size_gauges(writer: &mut PageWriter<'_>, view: &ModelView, labels: Labels<'_>) {
    let profile = &view.profile;
    let max_requests = f64::from(profile.max_num_seqs);
    let generating = view.running - view.prefilling;
    let iteration = &view.last_step;
    gauges(
        writer,
        labels,
        &[
            ("trtllm_max_batch_size_static", "Largest batch, as configured", max_requests),
            ("trtllm_max_batch_size_runtime", "Largest batch, at this moment", max_requests),
            ("trtllm_max_num_tokens_runtime", "Most tokens in a batch", f64::from(profile.max_num_batched_tokens)),
            ("trtllm_kv_cache_max_blocks", "Blocks of the KV cache", f64::from(profile.kv_blocks)),
            ("trtllm_kv_cache_free_blocks", "Blocks that are free", f64::from(profile.kv_blocks - view.used_blocks)),
            ("trtllm_kv_cache_used_blocks", "Blocks that are in use", f64::from(view.used_blocks)),
            ("trtllm_kv_cache_tokens_per_block", "Tokens in a block", f64::from(profile.block_size)),
            ("trtllm_num_context_requests", "Requests computing their prompts", f64::from(view.prefilling)),
            ("trtllm_num_generation_requests", "Requests producing output", f64::from(generating)),
            ("trtllm_num_paused_requests", "Requests paused for lack of blocks", f64::from(view.waiting_preempted)),
            ("trtllm_num_scheduled_requests", "Requests in the batch", f64::from(view.running)),
            ("trtllm_total_context_tokens", "Prompt tokens of the last iteration", f64::from(iteration.context_tokens)),
            (
                "trtllm_avg_decoded_tokens_per_iter",
                "Mean tokens a generating request got in the last iteration",
                f64::from(u8::from(iteration.generation_requests > 0)),
            ),
            (
                "trtllm_prefill_batch_occupancy",
                "Share of the batch's slots that compute prompts.",
                f64::from(view.prefilling) / max_requests,
            ),
        ],
    );
}

fn counters(writer: &mut PageWriter<'_>, input: &PageInput<'_>, model: (&str, &str)) {
    let view = input.view;
    let statistics = &view.statistics;
    let block_size = u64::from(view.profile.block_size);
    let reused_blocks = statistics.prefix_hits / block_size;
    let missed_blocks = (statistics.prefix_queries - statistics.prefix_hits) / block_size;
    let completed: u64 = statistics.completed.iter().sum();
    for (name, help, value) in [
        ("trtllm_prompt_tokens", "Prompt tokens processed.", statistics.prompt_tokens),
        ("trtllm_generation_tokens", "Output tokens produced.", statistics.generation_tokens),
        ("trtllm_kv_cache_reused_blocks", "KV cache blocks found in the cache", reused_blocks),
        ("trtllm_kv_cache_missed_blocks", "KV cache blocks not found in the cache", missed_blocks),
        ("trtllm_num_requests_completed", "Requests completed", completed),
    ] {
        writer.counter(name, help, LAYOUT, &[(&[ENGINE_TYPE, model], value as f64)]);
    }
    let by_reason = [("length", statistics.finished_length), ("stop", statistics.finished_stop), ("abort", statistics.aborted)];
    let labels = by_reason.map(|(reason, _)| [ENGINE_TYPE, ("finished_reason", reason), model]);
    let series: Vec<(Labels<'_>, f64)> =
        labels.iter().zip(by_reason).map(|(labels, (_, count))| (labels.as_slice(), count as f64)).collect();
    writer.counter("trtllm_request_success", "Requests that ended, by reason.", LAYOUT, &series);
}

pub(super) fn iteration_json(iteration: &Iteration, view: &ModelView) -> serde_json::Value {
    let profile = &view.profile;
    json!({
        "iter": iteration.number,
        "iterLatencyMS": iteration.duration.as_secs_f64() * 1000.0,
        "numActiveRequests": iteration.running,
        "numQueuedRequests": iteration.waiting,
        "maxNumActiveRequests": profile.max_num_seqs,
        "gpuMemUsage": GPU_MEMORY,
        "cpuMemUsage": CPU_MEMORY,
        "pinnedMemUsage": PINNED_MEMORY,
        "kvCacheStats": {
            "maxNumBlocks": profile.kv_blocks,
            "freeNumBlocks": profile.kv_blocks - iteration.used_blocks,
            "usedNumBlocks": iteration.used_blocks,
            "tokensPerBlock": profile.block_size,
        },
        "inflightBatchingStats": {
            "numContextRequests": iteration.context_requests,
            "numGenRequests": iteration.generation_requests,
            "numScheduledRequests": iteration.context_requests + iteration.generation_requests,
            "numCtxTokens": iteration.context_tokens,
        },
    })
}
