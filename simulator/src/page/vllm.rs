//! vLLM 0.29's own families, in the order of its page.

use super::PageInput;
use super::text::{Labels, Layout, PageWriter};
use crate::model::Histogram;

pub(super) fn render(writer: &mut PageWriter<'_>, input: &PageInput<'_>) {
    let page = Page { input, engine: ("engine", "0"), model: ("model_name", input.model_name) };
    page.gauges(writer);
    page.counters(writer);
    page.token_histograms(writer);
    page.latency_histograms(writer);
    page.adapters(writer);
    page.cache_config(writer);
}

struct Page<'a> {
    input: &'a PageInput<'a>,
    engine: (&'a str, &'a str),
    model: (&'a str, &'a str),
}

impl Page<'_> {
    fn layout(&self) -> Layout {
        Layout::OneProcess { created_at: self.input.started_at }
    }

    fn gauges(&self, writer: &mut PageWriter<'_>) {
        let view = self.input.view;
        let base = [self.engine, self.model];
        let waiting = f64::from(view.waiting);
        let deferred = f64::from(view.waiting_deferred);
        writer.gauge("vllm:num_requests_running", "Requests in the batch being executed.", &[(&base, f64::from(view.running))]);
        writer.gauge("vllm:num_requests_waiting", "Requests in the waiting queue.", &[(&base, waiting)]);
        writer.gauge(
            "vllm:num_requests_waiting_by_reason",
            "The requests of vllm:num_requests_waiting split by what they wait for: 'capacity' is a slot or KV blocks, 'deferred' a passing constraint such as a LoRA slot.",
            &[
                (&[self.engine, self.model, ("reason", "capacity")], waiting - deferred),
                (&[self.engine, self.model, ("reason", "deferred")], deferred),
            ],
        );
        writer.gauge(
            "vllm:engine_sleep_state",
            "Whether the engine sleeps: awake is 1 while it serves; weights_offloaded is 1 at level 1; discard_all is 1 at level 2.",
            &[
                (&[self.engine, self.model, ("sleep_state", "awake")], 1.0),
                (&[self.engine, self.model, ("sleep_state", "weights_offloaded")], 0.0),
                (&[self.engine, self.model, ("sleep_state", "discard_all")], 0.0),
            ],
        );
        writer.gauge("vllm:kv_cache_usage_perc", "Share of the KV-cache in use; 1 is all of it.", &[(&base, view.kv_cache_usage)]);
    }

    fn counters(&self, writer: &mut PageWriter<'_>) {
        let statistics = &self.input.view.statistics;
        let base = [self.engine, self.model];
        let layout = self.layout();
        let mut counter = |name: &str, help: &str, value: u64| writer.counter(name, help, layout, &[(&base, value as f64)]);
        counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", statistics.prefix_queries);
        counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", statistics.prefix_hits);
        counter(
            "vllm:external_prefix_cache_queries",
            "Tokens looked up in a cache shared between instances through a KV connector.",
            0,
        );
        counter("vllm:external_prefix_cache_hits", "Tokens found in a cache shared between instances through a KV connector.", 0);
        counter("vllm:mm_cache_queries", "Items looked up in the multi-modal cache.", 0);
        counter("vllm:mm_cache_hits", "Items found in the multi-modal cache.", 0);
        counter("vllm:num_preemptions", "Preemptions by the engine since its start.", statistics.preemptions);
        counter("vllm:prompt_tokens", "Prompt tokens processed.", statistics.prompt_tokens);

        let computed = statistics.prompt_tokens - statistics.prompt_tokens_cached;
        writer.counter(
            "vllm:prompt_tokens_by_source",
            "Prompt tokens by where they came from.",
            layout,
            &[
                (&[self.engine, self.model, ("source", "local_compute")], computed as f64),
                (&[self.engine, self.model, ("source", "local_cache_hit")], statistics.prompt_tokens_cached as f64),
                (&[self.engine, self.model, ("source", "external_kv_transfer")], 0.0),
            ],
        );
        let mut counter = |name: &str, help: &str, value: u64| writer.counter(name, help, layout, &[(&base, value as f64)]);
        counter(
            "vllm:prompt_tokens_cached",
            "Prompt tokens that came from a cache, local or external.",
            statistics.prompt_tokens_cached,
        );
        counter("vllm:generation_tokens", "Output tokens produced.", statistics.generation_tokens);

        let by_reason = [
            ("stop", statistics.finished_stop),
            ("length", statistics.finished_length),
            ("abort", statistics.aborted),
            ("error", 0),
            ("repetition", 0),
        ];
        let labels = by_reason.map(|(reason, _)| [self.engine, ("finished_reason", reason), self.model]);
        let series: Vec<(Labels<'_>, f64)> =
            labels.iter().zip(by_reason).map(|(labels, (_, count))| (labels.as_slice(), count as f64)).collect();
        writer.counter("vllm:request_success", "Requests that ended, by reason.", layout, &series);
    }

    fn histogram(&self, writer: &mut PageWriter<'_>, name: &str, help: &str, histogram: &Histogram) {
        writer.histogram(name, help, self.layout(), &[(&[self.engine, self.model], histogram)]);
    }

    fn token_histograms(&self, writer: &mut PageWriter<'_>) {
        let statistics = &self.input.view.statistics;
        self.histogram(writer, "vllm:request_prompt_tokens", "Prompt tokens per request.", &statistics.request_prompt_tokens);
        self.histogram(
            writer,
            "vllm:request_generation_tokens",
            "Output tokens per request.",
            &statistics.request_generation_tokens,
        );
        // The real server creates this series with its first step; before, the family is a bare header.
        let labels = [self.engine, self.model];
        let iterations: &[(Labels<'_>, &Histogram)] = &[(&labels, &statistics.iteration_tokens)];
        let stepped = usize::from(self.input.view.last_step.number > 0);
        writer.histogram("vllm:iteration_tokens_total", "Tokens computed per engine step.", self.layout(), &iterations[..stepped]);
        self.histogram(
            writer,
            "vllm:request_max_num_generation_tokens",
            "Largest number of output tokens over a request's choices.",
            &statistics.request_generation_tokens,
        );
        self.histogram(writer, "vllm:request_params_n", "The n parameter of requests.", &statistics.request_choices);
        self.histogram(
            writer,
            "vllm:request_params_max_tokens",
            "The max_tokens parameter of requests.",
            &statistics.request_max_tokens,
        );
    }

    fn latency_histograms(&self, writer: &mut PageWriter<'_>) {
        let statistics = &self.input.view.statistics;
        let [blocking, streaming] = &statistics.time_to_first_token;
        let first_token = blocking.merged(streaming);
        let [blocking, streaming] = &statistics.end_to_end;
        let end_to_end = blocking.merged(streaming);
        let families = [
            ("vllm:time_to_first_token_seconds", "Seconds from arrival to the first token.", &first_token),
            ("vllm:inter_token_latency_seconds", "Seconds between two tokens of a request.", &statistics.inter_token),
            (
                "vllm:request_time_per_output_token_seconds",
                "Mean seconds per output token after the first, one value per request.",
                &statistics.time_per_output_token,
            ),
            ("vllm:e2e_request_latency_seconds", "Seconds from arrival to the end of a request.", &end_to_end),
            ("vllm:request_queue_time_seconds", "Seconds a request spent WAITING.", &statistics.queue),
            ("vllm:request_inference_time_seconds", "Seconds a request spent RUNNING.", &statistics.inference),
            ("vllm:request_prefill_time_seconds", "Seconds a request spent in PREFILL.", &statistics.prefill),
            ("vllm:request_decode_time_seconds", "Seconds a request spent in DECODE.", &statistics.decode),
            (
                "vllm:request_prefill_kv_computed_tokens",
                "Tokens whose KV was computed in a request's prefill; cached ones do not count.",
                &statistics.request_prefill_tokens_computed,
            ),
        ];
        for (name, help, histogram) in families {
            self.histogram(writer, name, help, histogram);
        }
    }

    /// One series per combination ever seen, its value the wall-clock time it was last seen; only with adapters, and from the first step on.
    fn adapters(&self, writer: &mut PageWriter<'_>) {
        let view = self.input.view;
        if view.statistics.lora_combinations.is_empty() {
            return;
        }
        let max_loras = view.profile.max_loras.to_string();
        let labels: Vec<_> = view
            .statistics
            .lora_combinations
            .iter()
            .map(|((running, waiting), seen)| {
                let labels =
                    [("max_lora", max_loras.as_str()), ("running_lora_adapters", running), ("waiting_lora_adapters", waiting)];
                (labels, (self.input.started_at + *seen).as_secs_f64())
            })
            .collect();
        let series: Vec<(Labels<'_>, f64)> = labels.iter().map(|(labels, seen)| (labels.as_slice(), *seen)).collect();
        writer.gauge("vllm:lora_requests_info", "LoRA adapters of running and waiting requests.", &series);
    }

    fn cache_config(&self, writer: &mut PageWriter<'_>) {
        let profile = &self.input.view.profile;
        let blocks = profile.kv_blocks.to_string();
        let block_size = profile.block_size.to_string();
        let tokens = profile.kv_tokens().to_string();
        let concurrency = format!("{:?}", f64::from(profile.kv_tokens()) / f64::from(profile.max_model_len));
        let prefix_caching = if profile.prefix_cache_blocks > 0 { "True" } else { "False" };
        let labels = [
            ("_block_size_resolved", "True"),
            ("block_size", &block_size),
            ("cache_dtype", "auto"),
            ("calculate_kv_scales", "False"),
            ("enable_prefix_caching", prefix_caching),
            self.engine,
            ("gpu_memory_utilization", "0.9"),
            ("is_attention_free", "False"),
            ("kv_cache_dtype_skip_layers", "[]"),
            ("kv_cache_max_concurrency", &concurrency),
            ("kv_cache_memory_bytes", "None"),
            ("kv_cache_size_tokens", &tokens),
            ("kv_offloading_backend", "native"),
            ("kv_offloading_size", "None"),
            ("kv_sharing_fast_prefill", "False"),
            ("mamba_block_size", "None"),
            ("mamba_cache_dtype", "auto"),
            ("mamba_cache_mode", "none"),
            ("mamba_page_size_padded", "None"),
            ("mamba_ssm_cache_dtype", "auto"),
            ("num_cpu_blocks", "None"),
            ("num_gpu_blocks", &blocks),
            ("num_gpu_blocks_override", "None"),
            ("prefix_caching_hash_algo", "sha256"),
            ("prefix_match_unit", "None"),
            ("skip_page_size_padded", "None"),
            ("sliding_window", "None"),
            ("user_specified_block_size", "False"),
            ("user_specified_mamba_block_size", "False"),
        ];
        writer.gauge("vllm:cache_config_info", "The engine's cache configuration, as labels.", &[(&labels, 1.0)]);
    }
}
