"""The families of a vLLM server with one engine, in the real library: about as many and as long as its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LABELS = {"model_name": "meta-llama/Llama-3.1-8B-Instruct", "engine": "0"}

LATENCY = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
PER_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
TOKENS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]

HISTOGRAMS = {
    "time_to_first_token_seconds": FIRST_TOKEN,
    "inter_token_latency_seconds": PER_TOKEN,
    "request_time_per_output_token_seconds": PER_TOKEN,
    "e2e_request_latency_seconds": LATENCY,
    "request_queue_time_seconds": LATENCY,
    "request_inference_time_seconds": LATENCY,
    "request_prefill_time_seconds": LATENCY,
    "request_decode_time_seconds": LATENCY,
    "request_prompt_tokens": TOKENS,
    "request_generation_tokens": TOKENS,
    "request_max_num_generation_tokens": TOKENS,
    "request_params_max_tokens": TOKENS,
    "request_prefill_kv_computed_tokens": TOKENS,
    "iteration_tokens_total": [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
    "request_params_n": [1, 2, 5, 10, 20],
}

COUNTERS = [
    "num_preemptions", "prompt_tokens", "generation_tokens", "prompt_tokens_cached", "prefix_cache_queries", "prefix_cache_hits",
    "external_prefix_cache_queries", "external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits",
]


class Page:
    def __init__(self, registry: CollectorRegistry | None):
        names = list(LABELS)

        def gauge(name, labels=names):
            return Gauge(f"vllm:{name}", f"vLLM's {name.replace('_', ' ')}.", labels, registry=registry, multiprocess_mode="livesum")

        self.running = gauge("num_requests_running").labels(**LABELS)
        self.waiting = gauge("num_requests_waiting").labels(**LABELS)
        self.kv_cache = gauge("kv_cache_usage_perc").labels(**LABELS)
        by_reason = gauge("num_requests_waiting_by_reason", [*names, "reason"])
        for reason in ("capacity", "deferred"):
            by_reason.labels(**LABELS, reason=reason)
        config = {"block_size": "16", "num_gpu_blocks": "14800", "cache_dtype": "auto", "enable_prefix_caching": "True", **LABELS}
        gauge("cache_config_info", list(config)).labels(**config).set(1)
        self.counters = {}
        for name in COUNTERS:
            self.counters[name] = Counter(f"vllm:{name}", f"vLLM's {name.replace('_', ' ')}.", names, registry=registry).labels(**LABELS)
        success = Counter("vllm:request_success", "Requests by how they ended.", [*names, "finished_reason"], registry=registry)
        for reason in ("stop", "length", "abort", "error", "repetition"):
            success.labels(**LABELS, finished_reason=reason)
        for name, bounds in HISTOGRAMS.items():
            family = Histogram(f"vllm:{name}", f"Histogram of vLLM's {name.replace('_', ' ')}.", names, buckets=bounds, registry=registry)
            one = family.labels(**LABELS)
            for value in bounds:
                one.observe(value)

    def set(self, running=0.0, waiting=0.0, kv_cache=0.0):
        self.running.set(running)
        self.waiting.set(waiting)
        self.kv_cache.set(kv_cache)
