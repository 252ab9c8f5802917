//! SGLang 0.5.20's page: several processes behind it, so no `_created`, no process metrics, `_sum` first.
//!
//! Families about what the model does not have (speculation, disaggregation, sliding windows, routing keys) are there at rest values.

use super::PageInput;
use super::text::{Labels, Layout, PageWriter};

const LAYOUT: Layout = Layout::ManyProcesses;
const ENGINE_TYPE: (&str, &str) = ("engine_type", "unified");
const RANKS: [(&str, &str); 3] = [("moe_ep_rank", "0"), ("pp_rank", "0"), ("tp_rank", "0")];
/// The scheduler's process id in `pid` labels.
const SCHEDULER_PID: (&str, &str) = ("pid", "312");
/// Bounds of the routing key distribution: a gauge with `gt` and `le` labels, not a histogram.
const ROUTING_KEY_BOUNDS: [&str; 12] = ["0", "1", "2", "3", "5", "7", "10", "20", "50", "100", "200", "+Inf"];
/// Share of the reserved output length SGLang starts with; the model reserves nothing.
const INITIAL_NEW_TOKEN_RATIO: f64 = 0.7;
/// An 80 GB GPU at start, and what the weights take of it.
const GPU_MEMORY_GB: f64 = 78.6;
const WEIGHT_MEMORY_GB: f64 = 15.2;
const KV_BYTES_PER_TOKEN: f64 = 131_072.0;

pub(super) fn render(writer: &mut PageWriter<'_>, input: &PageInput<'_>) {
    let model = ("model_name", input.model_name);
    let page = Page {
        input,
        model,
        scheduler: [ENGINE_TYPE, model, RANKS[0], RANKS[1], RANKS[2]],
        tokenizer: [ENGINE_TYPE, model],
        streaming: [ENGINE_TYPE, ("is_streaming", "true"), model],
        blocking: [ENGINE_TYPE, ("is_streaming", "false"), model],
    };
    page.histograms(writer);
    page.load_gauges(writer);
    page.rest_gauges(writer);
    page.size_gauges(writer);
    page.counters(writer);
}

struct Page<'a> {
    input: &'a PageInput<'a>,
    model: (&'a str, &'a str),
    scheduler: [(&'a str, &'a str); 5],
    tokenizer: [(&'a str, &'a str); 2],
    streaming: [(&'a str, &'a str); 3],
    blocking: [(&'a str, &'a str); 3],
}

impl Page<'_> {
    fn histograms(&self, writer: &mut PageWriter<'_>) {
        let statistics = &self.input.view.statistics;
        let [blocking_first, streaming_first] = &statistics.time_to_first_token;
        let [blocking_end, streaming_end] = &statistics.end_to_end;
        let tokenizer: Labels<'_> = &self.tokenizer;
        writer.histogram("sglang:queue_time_seconds", "Seconds a request waited.", LAYOUT, &[(&self.scheduler, &statistics.queue)]);
        writer.histogram(
            "sglang:prompt_tokens_histogram",
            "Prompt length in tokens.",
            LAYOUT,
            &[(tokenizer, &statistics.request_prompt_tokens)],
        );
        writer.histogram(
            "sglang:generation_tokens_histogram",
            "Output length in tokens.",
            LAYOUT,
            &[(tokenizer, &statistics.request_generation_tokens)],
        );
        writer.histogram(
            "sglang:time_to_first_token_seconds",
            "Seconds to the first token.",
            LAYOUT,
            &[(&self.streaming, streaming_first), (&self.blocking, blocking_first)],
        );
        writer.histogram(
            "sglang:e2e_request_latency_seconds",
            "Seconds from arrival to end.",
            LAYOUT,
            &[(&self.streaming, streaming_end), (&self.blocking, blocking_end)],
        );
        writer.histogram(
            "sglang:inter_token_latency_seconds",
            "Seconds between tokens.",
            LAYOUT,
            &[(tokenizer, &statistics.inter_token)],
        );
    }

    fn scheduler_gauges(&self, writer: &mut PageWriter<'_>, gauges: &[(&str, &str, f64)]) {
        for (name, help, value) in gauges {
            writer.gauge(name, help, &[(&self.scheduler, *value)]);
        }
    }

    fn load_gauges(&self, writer: &mut PageWriter<'_>) {
        let view = self.input.view;
        let statistics = &view.statistics;
        let block_size = view.profile.block_size;
        let free_blocks = view.profile.kv_blocks - view.used_blocks;
        // What the cache remembers lives in blocks nobody holds.
        let evictable_blocks = view.cached_blocks.min(free_blocks);
        let tokens = |blocks: u32| f64::from(blocks) * f64::from(block_size);
        let usage = view.kv_cache_usage;
        let throughput = if view.running == 0 || view.last_step.duration.is_zero() {
            0.0
        } else {
            f64::from(view.last_step.generation_requests) / view.last_step.duration.as_secs_f64()
        };
        let hit_rate = ratio(statistics.prefix_hits, statistics.prefix_queries);
        self.scheduler_gauges(
            writer,
            &[
                ("sglang:num_running_reqs", "Requests running.", f64::from(view.running)),
                ("sglang:num_queue_reqs", "Requests waiting.", f64::from(view.waiting)),
                ("sglang:num_grammar_queue_reqs", "Requests waiting for their grammar.", 0.0),
                ("sglang:gen_throughput", "Output tokens per second of the last decode.", throughput),
                ("sglang:cache_hit_rate", "Share of prompt tokens found in the prefix cache.", hit_rate),
                ("sglang:decode_sum_seq_lens", "Tokens of all decoding sequences.", view.decoding_tokens as f64),
                ("sglang:token_usage", "Use of the fullest token pool.", usage),
                ("sglang:full_token_usage", "Use of the pool of full attention layers.", usage),
                ("sglang:swa_token_usage", "Use of the pool of sliding window layers.", 0.0),
                ("sglang:mamba_usage", "Use of the pool of Mamba layers.", 0.0),
                ("sglang:num_used_tokens", "Tokens in use.", tokens(view.used_blocks)),
                ("sglang:kv_available_tokens", "Token slots that are free.", tokens(free_blocks - evictable_blocks)),
                ("sglang:kv_evictable_tokens", "Token slots that only hold cached prefixes.", tokens(evictable_blocks)),
                ("sglang:kv_used_tokens", "Token slots held by running requests.", tokens(view.used_blocks)),
            ],
        );
    }

    fn rest_gauges(&self, writer: &mut PageWriter<'_>) {
        let view = self.input.view;
        let steps = view.last_step.number;
        // Not a number until there was traffic, as on the real page.
        let occupancy = if steps == 0 {
            f64::NAN
        } else {
            let elapsed = self.input.now.as_secs_f64().max(view.statistics.busy.as_secs_f64());
            100.0 * view.statistics.busy.as_secs_f64() / elapsed.max(f64::MIN_POSITIVE)
        };
        let decoding_only = view.running > 0 && view.last_step.context_requests == 0;
        let utilization = f64::from(view.running) / f64::from(view.profile.max_num_seqs);
        self.scheduler_gauges(
            writer,
            &[
                ("sglang:spec_accept_length", "Mean tokens accepted per speculative step.", 0.0),
                ("sglang:spec_accept_rate", "Share of speculated tokens accepted.", 0.0),
                ("sglang:num_prefill_bootstrap_queue_reqs", "Requests in the bootstrap queue of a prefill server.", 0.0),
                ("sglang:num_prefill_inflight_queue_reqs", "Requests in the inflight queue of a prefill server.", 0.0),
                ("sglang:num_decode_prealloc_queue_reqs", "Requests in the prealloc queue of a decode server.", 0.0),
                ("sglang:num_decode_transfer_queue_reqs", "Requests in the transfer queue of a decode server.", 0.0),
                ("sglang:pending_prealloc_token_usage", "Token use of requests that wait for preallocation.", 0.0),
                ("sglang:utilization", "Running requests as a share of the most that may run.", utilization),
                ("sglang:fwd_occupancy", "Share of the time spent in forward passes, in percent.", occupancy),
                ("sglang:new_token_ratio", "Share of the output length that is reserved.", INITIAL_NEW_TOKEN_RATIO),
                ("sglang:is_cuda_graph", "Whether the last batch ran as a CUDA graph.", f64::from(u8::from(decoding_only))),
            ],
        );
        let pairs: Vec<_> = ROUTING_KEY_BOUNDS.windows(2).collect();
        let labels: Vec<_> = pairs
            .iter()
            .map(|pair| [ENGINE_TYPE, ("gt", pair[0]), ("le", pair[1]), self.model, RANKS[0], RANKS[1], RANKS[2]])
            .collect();
        let series: Vec<(Labels<'_>, f64)> = labels.iter().map(|labels| (labels.as_slice(), 0.0)).collect();
        writer.gauge(
            "sglang:routing_key_running_req_count",
            "Routing keys by their running requests (above gt, up to le).",
            &series,
        );
    }

    fn size_gauges(&self, writer: &mut PageWriter<'_>) {
        let view = self.input.view;
        let profile = &view.profile;
        let kv_memory = f64::from(profile.kv_tokens()) * KV_BYTES_PER_TOKEN / f64::from(1 << 30);
        self.scheduler_gauges(
            writer,
            &[
                ("sglang:max_total_num_tokens", "Token slots of the KV cache.", f64::from(profile.kv_tokens())),
                ("sglang:weight_memory_usage_gb", "Memory of the weights in GB.", WEIGHT_MEMORY_GB),
                ("sglang:kv_cache_memory_usage_gb", "Memory of the KV cache in GB.", kv_memory),
                ("sglang:page_size", "Tokens in a page of the KV cache.", f64::from(profile.block_size)),
                ("sglang:num_pages", "Pages of the KV cache.", f64::from(profile.kv_blocks)),
                ("sglang:context_len", "Longest context in tokens.", f64::from(profile.max_model_len)),
                ("sglang:startup_available_gpu_memory_gb", "Free GPU memory at the start in GB.", GPU_MEMORY_GB),
            ],
        );
        let with_pid = [ENGINE_TYPE, self.model, RANKS[0], SCHEDULER_PID, RANKS[1], RANKS[2]];
        writer.gauge(
            "sglang:num_retracted_reqs",
            "Requests thrown out of the batch and waiting again.",
            &[(&with_pid, f64::from(view.waiting_preempted))],
        );
        writer.gauge("sglang:num_paused_reqs", "Requests paused while weights are synchronised.", &[(&with_pid, 0.0)]);
    }

    fn counters(&self, writer: &mut PageWriter<'_>) {
        let statistics = &self.input.view.statistics;
        let scheduler: Labels<'_> = &self.scheduler;
        for (name, help, value) in [
            ("sglang:num_retracted_requests", "Requests thrown out of the batch.", statistics.preemptions),
            ("sglang:num_retracted_input_tokens", "Prompt tokens of requests thrown out.", statistics.preempted_prompt_tokens),
            ("sglang:num_retracted_output_tokens", "Output tokens of requests thrown out.", statistics.preempted_generation_tokens),
        ] {
            writer.counter(name, help, LAYOUT, &[(scheduler, value as f64)]);
        }
        self.by_mode(
            writer,
            "sglang:cuda_graph_passes",
            "Forward passes by kind.",
            [("decode_cuda_graph", statistics.decode_steps), ("decode_none", 0), ("prefill_none", statistics.prefill_steps)],
        );
        self.by_mode(
            writer,
            "sglang:realtime_tokens",
            "Tokens processed so far, by kind.",
            [
                ("prefill_compute", statistics.prefill_tokens_computed),
                ("prefill_cache", statistics.prefix_hits),
                ("decode", statistics.generation_tokens),
            ],
        );
        let tokenizer: Labels<'_> = &self.tokenizer;
        writer.counter("sglang:num_aborted_requests", "Requests aborted.", LAYOUT, &[(tokenizer, statistics.aborted as f64)]);
        for (name, help, [blocking, streaming]) in [
            ("sglang:prompt_tokens", "Prompt tokens of ended requests.", statistics.completed_prompt_tokens),
            ("sglang:generation_tokens", "Output tokens of ended requests.", statistics.completed_generation_tokens),
            ("sglang:num_requests", "Requests ended.", statistics.completed),
        ] {
            writer.counter(name, help, LAYOUT, &[(&self.streaming, streaming as f64), (&self.blocking, blocking as f64)]);
        }
        let cached: Labels<'_> = &[("cache_source", "device"), ENGINE_TYPE, self.model];
        writer.counter(
            "sglang:cached_tokens",
            "Prompt tokens found in a cache, by its kind.",
            LAYOUT,
            &[(cached, statistics.prompt_tokens_cached as f64)],
        );
    }

    fn by_mode(&self, writer: &mut PageWriter<'_>, name: &str, help: &str, modes: [(&str, u64); 3]) {
        let labels = modes.map(|(mode, _)| [ENGINE_TYPE, ("mode", mode), self.model, RANKS[0], RANKS[1], RANKS[2]]);
        let series: Vec<(Labels<'_>, f64)> =
            labels.iter().zip(modes).map(|(labels, (_, value))| (labels.as_slice(), value as f64)).collect();
        writer.counter(name, help, LAYOUT, &series);
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
