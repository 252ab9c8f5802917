use super::*;

async fn page(server: &Server) -> String {
    text(get(server, server.engine().metrics_path()).await).await
}

#[tokio::test]
async fn the_page_shows_the_requests() {
    let server = start(ServerProfile { max_num_seqs: 1, ..slow() }).await;
    let first = text(get(&server, "/metrics").await).await;
    assert_eq!(value_on(&first, "vllm:num_requests_running"), 0.0);
    let mut running = chat(&server, streamed(chat_body(&"x".repeat(400), 1000))).await;
    running.chunk().await.unwrap();
    let waiting = chat(&server, streamed(chat_body("hi", 1000))).await;
    let response = get(&server, "/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(response.headers()[POD_HEADER], "simulator-0");
    let busy = text(response).await;
    assert_eq!(value_on(&busy, "vllm:num_requests_running"), 1.0);
    assert_eq!(value_on(&busy, "vllm:num_requests_waiting"), 1.0);
    assert_eq!(value_on(&busy, "vllm:kv_cache_usage_perc"), 7.0 / 512.0, "100 tokens in 512 blocks");
    drop((running, waiting));
    until("both are gone", || server.view().statistics.aborted == 2).await;
    let after = text(get(&server, "/metrics").await).await;
    assert_eq!(value_on(&after, "vllm:num_requests_running"), 0.0);
    assert_eq!(value_on(&after, "vllm:kv_cache_usage_perc"), 0.0);
    assert_eq!(value_on(&after, "vllm:request_success_total"), 2.0);
}

#[tokio::test]
async fn http_requests_are_counted_when_they_end() {
    let server = start(quick()).await;
    text(chat(&server, streamed(chat_body("hi", 3))).await).await;
    text(post(&server, "/v1/completions", "{").await).await;
    let page = text(get(&server, "/metrics").await).await;
    assert!(page.contains(r#"http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 1.0"#), "{page}");
    assert!(page.contains(r#"http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1.0"#));
    assert_eq!(value_on(&page, "http_request_duration_highr_seconds_count"), 2.0);
    assert_eq!(value_on(&page, "vllm:generation_tokens_total"), 3.0);
}

#[tokio::test]
async fn a_restricted_page_has_only_the_named_samples() {
    let server = start(quick()).await;
    let path = "/metrics?name[]=vllm:num_requests_running&name%5B%5D=vllm%3Akv_cache_usage_perc&name[]=vllm:num_requests";
    let page = text(get(&server, path).await).await;
    let samples: Vec<&str> =
        page.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('{').next().unwrap()).collect();
    assert_eq!(samples, ["vllm:num_requests_running", "vllm:kv_cache_usage_perc"]);
    assert_eq!(text(get(&server, "/metrics?name[]=no").await).await, "");
    assert!(text(get(&server, "/metrics?name[]=").await).await.len() > 40_000);
}

#[tokio::test]
async fn other_engines_serve_their_own_pages() {
    let start = |engine| Server::start(ServerConfig { engine, profile: quick(), ..ServerConfig::default() });
    let sglang = start(Engine::Sglang).await.unwrap();
    text(chat(&sglang, chat_body("hi", 3)).await).await;
    assert_eq!(value_on(&page(&sglang).await, "sglang:num_requests_total"), 1.0);
    assert_eq!(text(get(&sglang, "/metrics?name[]=sglang:num_running_reqs").await).await, "");

    let trtllm = start(Engine::Trtllm).await.unwrap();
    text(chat(&trtllm, chat_body("hi", 3)).await).await;
    assert_eq!(value_on(&page(&trtllm).await, "trtllm_num_requests_completed_total"), 1.0);
    let iterations = json_of(get(&trtllm, "/metrics").await).await;
    assert_eq!(iterations.as_array().unwrap().len(), 3);
    assert_eq!(iterations[0]["inflightBatchingStats"]["numContextRequests"], 1);
    assert_eq!(iterations[2]["kvCacheStats"]["usedNumBlocks"], 0);
    assert_eq!(json_of(get(&trtllm, "/metrics").await).await, json!([]), "reading empties it");
}

#[tokio::test]
async fn held_values_stay_and_let_go() {
    let server = start(quick()).await;
    let (running, waiting, kv_cache_usage) = (7, 9, 0.8125);
    server.faults().hold(Hold::Gauges { running, waiting, kv_cache_usage });
    text(chat(&server, chat_body("hi", 3)).await).await;
    let held = page(&server).await;
    let gauges = [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason",
        "vllm:kv_cache_usage_perc",
    ];
    assert_eq!(gauges.map(|name| value_on(&held, name)), [7.0, 9.0, 9.0, 0.8125]);
    assert_eq!(value_on(&held, "vllm:generation_tokens_total"), 3.0, "counters go on");

    server.faults().hold(Hold::Page);
    let frozen = page(&server).await;
    text(chat(&server, chat_body("hi", 3)).await).await;
    assert_eq!(page(&server).await, frozen);
    server.faults().hold(Hold::Nothing);
    let free = page(&server).await;
    assert_eq!(gauges.map(|name| value_on(&free, name)), [0.0; 4]);
    assert_eq!(value_on(&free, "vllm:generation_tokens_total"), 6.0);
}

#[tokio::test]
async fn held_gauges_break_no_engine() {
    for engine in [Engine::Vllm, Engine::Sglang, Engine::Trtllm] {
        let server = Server::start(ServerConfig { engine, profile: slow(), ..ServerConfig::default() }).await.unwrap();
        let mut stream = chat(&server, streamed(chat_body("hi", 100))).await;
        stream.chunk().await.unwrap();
        server.faults().hold(Hold::Gauges { running: 0, waiting: 0, kv_cache_usage: f64::NAN });
        assert!(page(&server).await.len() > 20_000);
        server.faults().hold(Hold::Gauges { running: u32::MAX, waiting: u32::MAX, kv_cache_usage: 7.0 });
        assert!(page(&server).await.len() > 20_000);
    }
}

#[tokio::test]
async fn broken_pages_are_broken_as_told() {
    let server = start(quick()).await;
    let whole = page(&server).await;
    let faults = server.faults();

    faults.set_metrics(MetricsFault::Status(503));
    assert_eq!(get(&server, "/metrics").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    faults.set_metrics(MetricsFault::Status(42));
    assert_eq!(get(&server, "/metrics").await.status(), StatusCode::INTERNAL_SERVER_ERROR);

    faults.set_metrics(MetricsFault::Html);
    let response = get(&server, "/metrics").await;
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(text(response).await.starts_with("<!DOCTYPE html>"));

    faults.set_metrics(MetricsFault::Empty);
    let response = get(&server, "/metrics").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "");

    faults.set_metrics(MetricsFault::Truncated);
    let half = text(get(&server, "/metrics").await).await;
    assert!(whole.starts_with(&half) && half.len() > whole.len() / 3 && half.len() < whole.len() && !half.ends_with('\n'));

    faults.set_metrics(MetricsFault::CutOff);
    let response = get(&server, "/metrics").await;
    assert_eq!(response.headers()["content-length"], whole.len().to_string().as_str());
    assert!(try_text(response).await.is_err());

    faults.set_metrics(MetricsFault::Normal);
    assert_eq!(page(&server).await.lines().count(), whole.lines().count());
}

#[tokio::test]
async fn endless_hanging_and_dripping_pages_do_not_end() {
    let server = start(quick()).await;
    let whole = page(&server).await;
    server.faults().set_metrics(MetricsFault::Endless);
    let mut response = get(&server, "/metrics").await;
    let mut read = 0;
    while read < 20 * whole.len() {
        read += timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().expect("no end").len();
    }
    drop(response);

    server.faults().set_metrics(MetricsFault::Drip);
    let mut response = get(&server, "/metrics").await;
    for _ in 0..3 {
        let drop = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        assert!(drop.len() <= 128, "{} bytes at once", drop.len());
    }

    server.faults().set_metrics(MetricsFault::Hang);
    let hanging = Client::new().get(url(&server, "/metrics")).send();
    assert!(timeout(Duration::from_millis(200), hanging).await.is_err());
    assert_eq!(get(&server, "/health").await.status(), StatusCode::OK, "only the page hangs");
    // Whatever hangs, an abort ends it.
    timeout(PATIENCE, server.abort()).await.unwrap();
}
