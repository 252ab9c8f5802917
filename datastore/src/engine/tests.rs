use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::load::{Combined, EndpointLoad, LoadSignal};
use crate::page::Format;

/// The moment the fixture pages were "written": 2026-11-21 12:00:00 UTC, about.
const WALL_MS: i64 = 1_795_240_000_000;

fn clock() -> PageClock {
    PageClock { asked_at: Instant::now(), wall_ms: WALL_MS, stale_after_ms: 60_000 }
}

fn load(page: &str) -> EndpointLoad {
    PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock(), &mut PageMemory::default()).unwrap()
}

fn verdicts(page: &str) -> Vec<SeriesVerdict> {
    let reading = PageReader::new(None, &[]).explain(page.as_bytes(), Format::Text, clock()).unwrap();
    reading.series.iter().map(|series| series.verdict).collect()
}

#[test]
fn the_newer_of_a_renamed_pair_is_read_alone() {
    let page = "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n";
    assert_eq!(load(page).kv_cache_utilization, Some(Combined { value: 0.25, hottest: 0.25 }));
    assert_eq!(verdicts(page), [SeriesVerdict::Used, SeriesVerdict::OlderName, SeriesVerdict::Used]);
    assert_eq!(load("vllm:gpu_cache_usage_perc 0.5\n").kv_cache_utilization, Some(Combined { value: 0.5, hottest: 0.5 }));
}

#[test]
fn engines_and_models_combine_by_meaning() {
    let page = "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3\nvllm:num_requests_running{engine=\"1\",model_name=\"m\"} 64\n\
                vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.75\n";
    let load = load(page);
    assert_eq!(load.running, Some(Combined { value: 67.0, hottest: 64.0 }));
    assert_eq!(load.kv_cache_utilization, Some(Combined { value: 0.5, hottest: 0.75 }));
    assert_eq!(load.waiting, None);
    assert_eq!(load.units.len(), 2);
}

#[test]
fn sglang_totals_are_not_added_to_their_parts_nor_ranks_to_each_other() {
    let page = "sglang:num_running_reqs{priority=\"1\",tp_rank=\"0\"} 20\nsglang:num_running_reqs{priority=\"\",tp_rank=\"1\"} 30\n\
                sglang:num_running_reqs{priority=\"\",tp_rank=\"0\"} 30\n";
    assert_eq!(load(page).running, Some(Combined { value: 30.0, hottest: 30.0 }));
    assert_eq!(verdicts(page), [SeriesVerdict::PartOfTotal, SeriesVerdict::Used, SeriesVerdict::Used]);
}

#[test]
fn of_a_restarted_worker_the_living_process_counts() {
    let page = |dead: u32, alive: u32| {
        format!("trtllm_num_requests_running{{pid=\"900\"}} {dead}\ntrtllm_num_requests_running{{pid=\"188\"}} {alive}\n")
    };
    let reader = PageReader::new(None, &[]);
    let mut memory = PageMemory::default();
    let mut running = |dead, alive| {
        let load = reader.read(page(dead, alive).as_bytes(), Format::Text, clock(), &mut memory).unwrap();
        load.running.unwrap().value
    };
    assert_eq!(running(7, 3), 7.0, "nothing changed yet: the highest id");
    assert_eq!(running(7, 4), 4.0);
    assert_eq!(running(7, 4), 4.0, "frozen when idle, but it changed last");
    assert_eq!(running(6, 4), 6.0);
    assert_eq!(verdicts(&page(7, 3)), [SeriesVerdict::Used, SeriesVerdict::DeadProcess]);
}

#[test]
fn one_triton_family_has_many_meanings_and_is_never_added_up() {
    let series = |kind: &str, value: u32| format!("nv_trt_llm_request_metrics{{model=\"m\",request_type=\"{kind}\"}} {value}\n");
    let load = load(&(series("waiting", 7) + &series("scheduled", 31) + &series("max", 512) + &series("active", 38)));
    assert_eq!(load.engine, Engine::TritonTensorrtLlm);
    assert_eq!((load.running.unwrap().value, load.waiting.unwrap().value, load.units[0].max_running), (31.0, 7.0, Some(512.0)));
}

#[test]
fn a_fresh_text_generation_inference_server_is_idle_and_not_unknown() {
    let idle = load("tgi_request_count{method=\"generate\"} 1\n");
    assert_eq!((idle.engine, idle.running.unwrap().value, idle.waiting.unwrap().value), (Engine::Tgi, 0.0, 0.0));
    assert_eq!(idle.kv_cache_utilization, None, "it has no such metric, ever");
    let invalid = load("tgi_queue_size NaN\ntgi_batch_current_size 2\n");
    assert_eq!((invalid.waiting, invalid.running.unwrap().value), (None, 2.0), "on the page but unusable is unknown");
}

#[test]
fn families_that_a_pool_names_itself() {
    let custom = |name: &str, labels: &[(&str, &str)], signal, several| CustomFamily {
        name: name.into(),
        labels: labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
        signal,
        several,
    };
    let families = [
        custom("my_active", &[], LoadSignal::Running, Several::Sum),
        custom("my_queue", &[("stage", "prefill")], LoadSignal::Waiting, Several::Max),
        custom("my_cache", &[], LoadSignal::KvCacheUtilization, Several::Mean),
    ];
    let page = "my_active{w=\"a\"} 3\nmy_active{w=\"b\"} 4\nmy_queue{stage=\"prefill\",w=\"a\"} 5\nmy_queue{stage=\"prefill\",w=\"b\"} 6\n\
                my_queue{stage=\"decode\"} 70\nmy_cache{w=\"a\"} 0.25\nmy_cache{w=\"b\"} 0.75\nvllm:num_requests_running 99\n";
    let read = |engine| {
        let reader = PageReader::new(Some(engine), &families);
        reader.read(page.as_bytes(), Format::Text, clock(), &mut PageMemory::default()).unwrap()
    };
    for engine in [Engine::Custom, Engine::Vllm] {
        let load = read(engine);
        let values = [load.running, load.waiting, load.kv_cache_utilization].map(|signal| signal.unwrap().value);
        assert_eq!(values, [7.0, 6.0, 0.5], "{engine}: the pool's own families replace the engine's");
    }
}

#[test]
fn engines_go_by_the_names_that_people_and_pods_use() {
    for engine in Engine::DETECTED {
        assert_eq!(engine.name().parse(), Ok(engine));
    }
    assert_eq!("trtllm".parse(), Ok(Engine::TrtllmServe));
    assert_eq!("triton-tensorrt-llm".parse(), Ok(Engine::TritonTensorrtLlm));
    let error = "vlm".parse::<Engine>().unwrap_err();
    assert_eq!(
        error,
        "unknown engine `vlm`: one of auto, vllm, llm-d-inference-sim, sglang, trtllm-serve, triton-tensorrt-llm, triton, tgi, llamacpp, \
         lmdeploy, custom"
    );
}

#[test]
fn impossible_values_are_absent_and_counted() {
    for (page, invalid) in [
        ("vllm:num_requests_running -1\n", 1),
        ("vllm:num_requests_running 1e300\n", 1),
        ("vllm:num_requests_running NaN\n", 1),
        ("vllm:num_requests_running +Inf\n", 1),
        ("vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 73.4\n", 1),
        ("vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 1\n", 0),
    ] {
        let load = load(page);
        assert_eq!(load.unused.invalid, invalid, "{page}");
        assert_eq!(load.running.is_some() && load.kv_cache_utilization.is_some(), invalid == 0, "{page}");
    }
}

#[test]
fn a_first_sample_that_is_invalid_is_not_replaced_by_its_duplicate() {
    let load = load("vllm:num_requests_running{a=\"1\",b=\"2\"} NaN\nvllm:num_requests_running{b=\"2\",a=\"1\"} 5\n");
    assert_eq!((load.running, load.unused.invalid, load.unused.duplicates), (None, 1, 1));
}

#[test]
fn samples_with_an_old_timestamp_of_their_own_are_left_out() {
    let page = format!("vllm:num_requests_running 7 {}\nvllm:num_requests_waiting 4 {}\n", WALL_MS - 60_001, WALL_MS - 60_000);
    let load = load(&page);
    assert_eq!((load.running, load.unused.outdated), (None, 1));
    assert_eq!(load.waiting, Some(Combined { value: 4.0, hottest: 4.0 }));
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing_for_samples_without_a_timestamp() {
    let page = "vllm:num_requests_running 7\nvllm:num_requests_waiting 4\n";
    let read_at = |wall_ms| {
        let clock = PageClock { wall_ms, ..clock() };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        (load.running, load.waiting, load.unused)
    };
    let before = read_at(WALL_MS);
    assert_eq!(before, read_at(WALL_MS + 86_400_000), "a day forward");
    assert_eq!(before, read_at(WALL_MS - 86_400_000), "a day back");
    assert_eq!(before, read_at(0));
    assert_eq!(before, read_at(i64::MIN));
}

#[test]
fn the_newest_lora_series_counts_and_sums_of_times_do_not() {
    let series = |running: &str, value: &str| {
        format!(
            "vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"w\"}} {value}\n"
        )
    };
    let running = |page: String| {
        let lora = load(&format!("vllm:num_requests_running 1\n{page}")).lora.unwrap();
        assert_eq!(lora.max, Some(4));
        lora.running.join(",")
    };
    assert_eq!(running(series("a", "1.7952399e+09") + &series("b , c", "1.7952400e+09") + &series("d", "1.7952400e+09")), "b,c");
    assert_eq!(running(series("a", "1.7952399e+09") + &series("", "3.59e+09")), "a");
    assert_eq!(running(series("", "3.58e+09") + &series("b", "3.59e+09")), "b");
}

#[test]
fn a_page_of_another_program_says_so() {
    let fixed = PageReader::new(Some(Engine::Vllm), &[]);
    let error =
        |page: &str| fixed.read(page.as_bytes(), Format::Text, clock(), &mut PageMemory::default()).unwrap_err().to_string();
    assert_eq!(
        error("sglang:num_running_reqs 1\n"),
        "a metrics page of 1 samples, none of them of vllm (such as vllm:num_requests_running); it looks like sglang: set `engine: \
         sglang` or `engine: auto`"
    );
    assert!(error("go_goroutines 5\n").contains("another program's"), "{}", error("go_goroutines 5\n"));
    assert!(error("").contains("the page is empty"), "{}", error(""));
}

#[test]
fn counters_that_move_mean_activity_even_between_requests() {
    let first = load("vllm:num_requests_running 0\nvllm:generation_tokens_total 10\n");
    let same = load("vllm:num_requests_running 0\nvllm:generation_tokens_total 10\n");
    let moved = load("vllm:num_requests_running 0\nvllm:generation_tokens_total 11\n");
    assert!(!first.is_active_since(None));
    assert!(!same.is_active_since(Some(&first)));
    assert!(moved.is_active_since(Some(&first)));
    assert!(load("vllm:num_requests_waiting 1\n").is_active_since(None));
    assert!(clock().asked_at.elapsed() < Duration::from_secs(60));
}
