use tokio::time::Instant;

use super::models::MOST_PAIRS;
use super::testing::page;
use super::*;
use crate::flow::Outcome;
use crate::inference::Usage;

fn registered() -> (Registry, EppMetrics) {
    let mut registry = Registry::default();
    let metrics = EppMetrics::register(&mut registry, "llama", &SchedulingConfig::default(), "c0ffee", "v1");
    (registry, metrics)
}

#[test]
fn names_labels_and_bounds_are_upstreams() {
    let (registry, metrics) = registered();
    let model = metrics.model("m", "t");
    model.placed(-1, 100);
    model.used(Usage { prompt_tokens: 7, completion_tokens: 10, cached_tokens: 4 });
    let usage = Usage { prompt_tokens: 7, completion_tokens: 10, cached_tokens: 4 };
    model.completed(Duration::from_secs(2), 2000, Some(usage));
    model.server_failed();
    model.refused(Code::ResourceExhausted);
    let endpoint = metrics.endpoint("pod".into(), "default".into(), 8000);
    metrics.scheduled(&endpoint, &model, Duration::from_micros(150));
    metrics.scheduling_failed(&model, Duration::from_micros(50));
    metrics.rewritten(&"rule".into(), &model);
    metrics.saturated(Some(0.5));
    metrics.prefix(3, 4, 64);
    metrics.prefix_remembered(12);
    metrics.plugin_ran(ExtensionPoint::Scorer, &PluginName::of_type("queue-scorer"), Duration::from_micros(3));
    metrics.ejected(Evidence::PassedOver);
    metrics.endpoints(1, 2);
    let page = page(&registry);
    for line in [
        r#"inference_objective_request_total{model_name="m",target_model_name="t",priority="-1"} 1"#,
        r#"inference_objective_request_error_total{model_name="m",target_model_name="t",error_code="ModelServerError"} 1"#,
        r#"inference_objective_request_error_total{model_name="m",target_model_name="t",error_code="ResourceExhausted"} 1"#,
        r#"inference_objective_request_duration_seconds_bucket{le="2.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_request_duration_seconds_bucket{le="3600.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_request_sizes_bucket{le="64.0",model_name="m",target_model_name="t"} 0"#,
        r#"inference_objective_request_sizes_bucket{le="1073741824.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_response_sizes_bucket{le="1024.0",model_name="m",target_model_name="t"} 0"#,
        r#"inference_objective_response_sizes_bucket{le="65536.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_input_tokens_bucket{le="8.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_input_tokens_bucket{le="32778.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_output_tokens_bucket{le="8.0",model_name="m",target_model_name="t"} 0"#,
        r#"inference_objective_output_tokens_bucket{le="8192.0",model_name="m",target_model_name="t"} 1"#,
        r#"inference_objective_prompt_cached_tokens_sum{model_name="m",target_model_name="t"} 4.0"#,
        r#"inference_objective_running_requests{model_name="m"} 1"#,
        r#"inference_objective_normalized_time_per_output_token_seconds_sum{model_name="m",target_model_name="t"} 0.2"#,
        r#"inference_extension_scheduler_e2e_duration_seconds_bucket{le="0.0002"} 2"#,
        r#"inference_extension_scheduler_attempts_total{status="success",target_model_name="t",pod_name="pod",namespace="default",port="8000"} 1"#,
        r#"inference_extension_scheduler_attempts_total{status="failure",target_model_name="t",pod_name="",namespace="",port=""} 1"#,
        r#"inference_extension_plugin_duration_seconds_count{extension_point="Scorer",plugin_type="queue-scorer",plugin_name="queue-scorer"} 1"#,
        r#"inference_extension_prefix_indexer_size 12"#,
        r#"inference_extension_prefix_indexer_hit_ratio_bucket{le="0.8"} 1"#,
        r#"inference_extension_prefix_indexer_hit_ratio_bucket{le="0.7"} 0"#,
        r#"inference_extension_prefix_indexer_hit_bytes_bucket{le="256.0"} 1"#,
        r#"inference_extension_prefix_indexer_hit_bytes_bucket{le="65536.0"} 1"#,
        r#"inference_extension_info{commit="c0ffee",build_ref="v1"} 1"#,
        r#"inference_extension_model_rewrite_decisions_total{model_rewrite_name="rule",model_name="m",target_model="t"} 1"#,
        r#"inference_extension_flow_control_pool_saturation{inference_pool="llama"} 0.5"#,
        r#"weir_epp_ejections_total{evidence="passed_over"} 1"#,
        r#"weir_epp_ejections_total{evidence="no_answer"} 0"#,
        r#"weir_epp_ejected_endpoints 1"#,
        r#"weir_epp_unroutable_endpoints 2"#,
        r#"weir_epp_folded_model_names_total 0"#,
    ] {
        assert!(page.lines().any(|on_page| on_page == line), "no `{line}` in\n{page}");
    }
    let documentation = include_str!("../../../docs/plugins.md");
    let own = |line: &&str| line.starts_with("# TYPE weir_epp_");
    for name in page.lines().filter(own).filter_map(|line| line.split(' ').nth(2)) {
        assert!(documentation.contains(&format!("`{name}")), "{name} is not documented");
    }
    for help in page.lines().filter(|line| line.starts_with("# HELP inference_")) {
        assert!(help.split_once(' ').unwrap().1.contains(" [ALPHA] "), "{help}");
    }
    for (family, buckets) in
        [("request_duration_seconds", 36), ("request_sizes", 26), ("response_sizes", 16), ("output_tokens", 13)]
    {
        let bucket = format!("inference_objective_{family}_bucket{{");
        assert_eq!(page.matches(&bucket).count(), buckets, "{family} with +Inf");
    }
}

#[test]
fn series_of_what_is_gone_go() {
    let (registry, metrics) = registered();
    let model = metrics.model("m", "m");
    let endpoint = metrics.endpoint("pod".into(), "default".into(), 8000);
    metrics.scheduled(&endpoint, &model, Duration::ZERO);
    metrics.saturated(Some(1.0));
    assert!(page(&registry).contains("pod_name=\"pod\"") && page(&registry).contains("pool_saturation{"));
    drop(endpoint);
    metrics.saturated(None);
    assert!(!page(&registry).contains("pod_name=\"pod\"") && !page(&registry).contains("pool_saturation{"));
}

#[test]
fn names_that_clients_invent_are_bounded_and_configured_ones_are_not() {
    let (registry, metrics) = registered();
    let name = |index: usize| format!("invented-{index}");
    (0..1500).for_each(|index| metrics.model(&name(index), &name(index)).placed(0, 1));
    metrics.model(&"x".repeat(257), "").placed(0, 1);
    let configured: Arc<str> = "served".into();
    metrics.configure_models([&configured].into_iter());
    metrics.model("served", "served").placed(0, 1);
    metrics.model("served", &name(0)).placed(0, 1);
    let endpoint = metrics.endpoint("pod".into(), "default".into(), 8000);
    (0..100).for_each(|index| metrics.scheduled(&endpoint, &metrics.model(&name(index), &name(index)), Duration::ZERO));
    let page = page(&registry);
    assert_eq!(page.matches("inference_objective_request_total{").count(), MOST_PAIRS + 2, "the others, the configured");
    // Names too many, one too long, and one that is configured for an invented target.
    let folded = 1500 - MOST_PAIRS + 2;
    let others = "inference_objective_request_total{model_name=\"other\",target_model_name=\"other\",priority=\"0\"}";
    assert!(page.contains(&format!("{others} {folded}\n")));
    assert!(page.contains(&format!("weir_epp_folded_model_names_total {folded}\n")));
    assert_eq!(page.matches("scheduler_attempts_total{status=\"success\"").count(), 21);
}

#[test]
fn requests_without_a_model_run_uncounted() {
    let (registry, metrics) = registered();
    let model = metrics.model("", "");
    model.placed(0, 0);
    model.ended();
    let page = page(&registry);
    assert!(page.contains("request_total{model_name=\"\",target_model_name=\"\",priority=\"0\"} 1"));
    assert!(!page.contains("running_requests{"));
}

#[test]
fn flows_are_bounded_and_go_when_nothing_of_them_waits_for_long() {
    let (registry, metrics) = registered();
    let (model, start) = (metrics.model("m", "t"), Instant::now());
    let series: Vec<_> = (0..1200).map(|index| metrics.flow.series(&format!("flow-{index}"), 3, &model, start)).collect();
    let long = metrics.flow.series(&"x".repeat(257), 3, &model, start);
    series.iter().chain([&long]).for_each(|series| series.entered(10));
    let text = page(&registry);
    let labels = |flow: &str| {
        format!("{{fairness_id=\"{flow}\",priority=\"3\",inference_pool=\"llama\",model_name=\"m\",target_model_name=\"t\"}}")
    };
    for line in [
        format!("inference_extension_flow_control_queue_size{} 1", labels("flow-7")),
        format!("inference_extension_flow_control_queue_bytes{} 10", labels("flow-7")),
        format!("inference_extension_flow_control_queue_size{} 201", labels("other")),
        "weir_epp_folded_fairness_ids_total 201".to_owned(),
    ] {
        assert!(text.lines().any(|on_page| on_page == line), "no `{line}`");
    }
    assert_eq!(text.matches("inference_extension_flow_control_queue_size{").count(), 1001);

    let waited = Duration::from_millis(30);
    series[7].left(10);
    metrics.flow.ended(&series[7], Outcome::Dispatched, waited);
    metrics.flow.ended(&series[7], Outcome::EvictedTtl, waited);
    metrics.flow.enqueued(&series[7], None, Duration::from_micros(150));
    metrics.flow.looked(Duration::from_micros(150));
    let text = page(&registry);
    for line in [
        r#"inference_extension_flow_control_request_queue_duration_seconds_bucket{le="0.05",fairness_id="flow-7",priority="3",outcome="Dispatched",inference_pool="llama",model_name="m",target_model_name="t"} 1"#,
        r#"inference_extension_flow_control_request_queue_duration_seconds_bucket{le="0.025",fairness_id="flow-7",priority="3",outcome="EvictedTTL",inference_pool="llama",model_name="m",target_model_name="t"} 0"#,
        r#"inference_extension_flow_control_request_enqueue_duration_seconds_bucket{le="0.0002",fairness_id="flow-7",priority="3",outcome="NotYetFinalized"} 1"#,
        r#"inference_extension_flow_control_dispatch_cycle_duration_seconds_bucket{le="0.0002"} 1"#,
        r#"llm_d_epp_flow_control_requests_total{outcome="EvictedTTL",priority="3",inference_pool="llama"} 1"#,
    ] {
        assert!(text.lines().any(|on_page| on_page == line), "no `{line}` in\n{text}");
    }
    drop(series);
    metrics.flow.forget_idle(start + Duration::from_secs(299));
    assert!(page(&registry).contains("flow-7"));
    metrics.flow.forget_idle(start + Duration::from_secs(300));
    let text = page(&registry);
    assert!(!text.contains("flow-7"), "nothing of it is left");
    assert!(text.contains("fairness_id=\"other\""), "there some wait");
}
