use super::*;

#[tokio::test]
async fn a_chat_answers_whole_with_usage() {
    let server = start(quick()).await;
    let response = chat(&server, chat_body("12345678", 7)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[POD_HEADER], "simulator-0");
    let answer = json_of(response).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], MODEL);
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("length")));
    assert_eq!(choice["message"]["content"].as_str().unwrap().split(' ').count(), 7);
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]), (&json!(2), &json!(7), &json!(9)));
}

#[tokio::test]
async fn a_chat_streams_role_tokens_reason_usage_and_done() {
    let server = start(quick()).await;
    let mut body = streamed(chat_body("hello", 5));
    body["stream_options"] = json!({ "include_usage": true });
    let events = events(chat(&server, body).await).await;
    assert_eq!(events.len(), 1 + 5 + 1 + 1);
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["id"] == events[0]["id"]));
    assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    for event in &events[1..6] {
        assert!(!event["choices"][0]["delta"]["content"].as_str().unwrap().is_empty());
        assert_eq!(event["choices"][0]["finish_reason"], Value::Null);
    }
    assert_eq!(events[6]["choices"][0]["delta"], json!({}));
    assert_eq!(events[6]["choices"][0]["finish_reason"], "length");
    assert!(events[..7].iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!(events[7]["choices"], json!([]));
    assert_eq!(events[7]["usage"]["completion_tokens"], 5);
    assert_eq!(events[7]["usage"]["prompt_tokens"], 2);
}

#[tokio::test]
async fn a_stream_without_usage_has_no_such_field() {
    let server = start(quick()).await;
    let events = events(chat(&server, streamed(chat_body("hello", 2))).await).await;
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn text_completions_whole_and_streamed() {
    let server = start(quick()).await;
    let body = json!({ "model": MODEL, "prompt": "once upon", "max_completion_tokens": 3, "max_tokens": 9 });
    let answer = json_of(post(&server, "/v1/completions", &body).await).await;
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().split(' ').count(), 3);
    let events = events(post(&server, "/v1/completions", streamed(body)).await).await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "length");
    assert!(events[2]["choices"][0].get("delta").is_none());
}

#[tokio::test]
async fn several_prompts_and_choices_are_so_many_sequences() {
    let server = start(quick()).await;
    let mut body = json!({ "model": MODEL, "prompt": ["aaaa", "bbbb"], "n": 2, "max_tokens": 3 });
    let answer = json_of(post(&server, "/v1/completions", &body).await).await;
    let indexes: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    body["stream_options"] = json!({ "include_usage": true });
    let events = events(post(&server, "/v1/completions", streamed(body)).await).await;
    for index in 0..4 {
        assert_eq!(events.iter().filter(|event| event["choices"][0]["index"] == index).count(), 3);
    }
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 12);
    assert_eq!(server.view().statistics.finished_length, 8);
}

#[tokio::test]
async fn an_answer_without_a_maximum_stops_by_itself() {
    let server = start(ServerProfile { mean_output_tokens: 10, ..quick() }).await;
    let mut lengths = Vec::new();
    for _ in 0..5 {
        let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] });
        let answer = json_of(chat(&server, body).await).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        lengths.push(answer["usage"]["completion_tokens"].as_u64().unwrap());
    }
    assert!(lengths.iter().any(|length| *length != lengths[0]), "drawn, not fixed: {lengths:?}");
}

#[tokio::test]
async fn a_known_prompt_is_reported_as_cached() {
    let server = start(quick()).await;
    let body = chat_body(&"x".repeat(640), 1);
    let cached = |answer: Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(json_of(chat(&server, body.clone()).await).await), 0);
    assert_eq!(cached(json_of(chat(&server, body).await).await), 144, "160 tokens but the last block");
}

#[tokio::test]
async fn models_version_and_health() {
    let config = ServerConfig { adapters: vec!["sql-lora".into()], profile: quick(), ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    let models = json_of(get(&server, "/v1/models").await).await;
    assert_eq!((&models["data"][0]["id"], &models["data"][1]["id"]), (&json!(MODEL), &json!("sql-lora")));
    assert_eq!(models["data"][1]["parent"], MODEL);
    assert_eq!(json_of(get(&server, "/version").await).await["version"], "0.29.0");
    assert_eq!(get(&server, "/health").await.status(), StatusCode::OK);
    server.faults().set_unhealthy(true);
    assert_eq!(get(&server, "/health").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    server.faults().set_unhealthy(false);
    assert_eq!(get(&server, "/health").await.status(), StatusCode::OK);

    let mut body = chat_body("hi", 2);
    body["model"] = json!("sql-lora");
    let answer = json_of(chat(&server, body).await).await;
    assert_eq!(answer["model"], "sql-lora");
    assert!(text(get(&server, "/metrics").await).await.contains("running_lora_adapters"));
}

#[tokio::test]
async fn errors_have_openais_shape_and_name_the_field() {
    let server = start(quick()).await;
    let bad = [
        ("{", Value::Null, "JSON"),
        ("[]", Value::Null, "JSON object"),
        (r#"{"messages":[]}"#, json!("model"), "missing"),
        (r#"{"model":7}"#, json!("model"), "string"),
        (r#"{"model":"M"}"#, json!("messages"), "missing"),
        (r#"{"model":"M","messages":"hi"}"#, json!("messages"), "array"),
        (r#"{"model":"M","messages":[]}"#, json!("messages"), "empty"),
        (r#"{"model":"M","messages":[{"content":"x"}]}"#, json!("messages[0].role"), "string"),
        (r#"{"model":"M","messages":[{"role":"user"}]}"#, json!("messages[0].content"), "missing"),
        (r#"{"model":"M","messages":[{"role":"user","content":7}]}"#, json!("messages[0].content"), "string"),
        (
            r#"{"model":"M","messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            json!("messages[0].content[0].text"),
            "string",
        ),
        (r#"{"model":"M","messages":[{"role":"user","content":"x"}],"max_tokens":0}"#, json!("max_tokens"), "at least 1"),
        (r#"{"model":"M","messages":[{"role":"user","content":"x"}],"max_tokens":1.5}"#, json!("max_tokens"), "integer"),
        (r#"{"model":"M","messages":[{"role":"user","content":"x"}],"max_tokens":99999}"#, json!("messages"), "exceed"),
        (r#"{"model":"M","messages":[{"role":"user","content":"x"}],"n":33}"#, json!("n"), "32"),
        (r#"{"model":"M","messages":[{"role":"user","content":"x"}],"stream":"yes"}"#, json!("stream"), "true or false"),
        (
            r#"{"model":"M","messages":[{"role":"user","content":"x"}],"stream_options":{}}"#,
            json!("stream_options"),
            "stream: true",
        ),
    ];
    for (body, param, part) in bad {
        let response = post(&server, "/v1/chat/completions", body.replace("\"M\"", &format!("{MODEL:?}"))).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(response.headers()[POD_HEADER], "simulator-0");
        let error = &json_of(response).await["error"];
        assert_eq!(error["param"], param, "{body}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
    }
    for (prompt, param) in
        [(json!(null), "prompt"), (json!([]), "prompt"), (json!(["a", 7]), "prompt[1]"), (json!([1, "a"]), "prompt[1]")]
    {
        let response = post(&server, "/v1/completions", json!({ "model": MODEL, "prompt": prompt })).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(json_of(response).await["error"]["param"], param);
    }
    assert!(server.view().statistics.prompt_tokens == 0, "nothing of it reached the model");
}

#[tokio::test]
async fn unknown_models_paths_and_methods() {
    let server = start(quick()).await;
    let mut body = chat_body("hi", 1);
    body["model"] = json!("gpt-5");
    let response = chat(&server, body).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let error = json_of(response).await["error"].take();
    assert_eq!(error["code"], "model_not_found");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("gpt-5") && message.contains(MODEL), "{message}");

    let response = get(&server, "/v1/embeddings").await;
    assert_eq!((response.status(), &response.headers()[POD_HEADER]), (StatusCode::NOT_FOUND, &"simulator-0".parse().unwrap()));
    assert!(json_of(response).await["error"]["message"].as_str().unwrap().contains("/v1/embeddings"));
    let response = get(&server, "/v1/completions").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(json_of(response).await["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let config = ServerConfig { max_body_bytes: 1000, profile: quick(), ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    let response = chat(&server, chat_body(&"x".repeat(1000), 1)).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(json_of(response).await["error"]["message"].as_str().unwrap().contains("1000 bytes"));
    assert_eq!(chat(&server, chat_body(&"x".repeat(500), 1)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_full_queue_is_429_and_keeps_nothing_of_the_request() {
    let server = start(ServerProfile { max_num_seqs: 1, waiting_limit: 1, ..slow() }).await;
    let mut running = chat(&server, streamed(chat_body("hi", 1000))).await;
    running.chunk().await.unwrap();
    let waiting = chat(&server, streamed(chat_body("hi", 1000))).await;
    let view = server.view();
    assert_eq!((view.running, view.waiting), (1, 1));
    let refused = chat(&server, chat_body("hi", 1)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(json_of(refused).await["error"]["code"], "queue_full");
    // Of two choices the first finds a place: it must be given back when the second does not.
    drop(waiting);
    until("the waiting request is gone", || server.view().waiting == 0).await;
    let mut two = chat_body("hi", 1);
    two["n"] = json!(2);
    assert_eq!(chat(&server, two).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(server.view().waiting, 0);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let server = start(slow()).await;
    let mut stream = chat(&server, streamed(chat_body("hi", 1000))).await;
    stream.chunk().await.unwrap();
    let whole =
        tokio::spawn(Client::new().post(url(&server, "/v1/chat/completions")).body(chat_body("hi", 1000).to_string()).send());
    until("both run", || server.view().running == 2).await;
    assert!(server.view().used_blocks > 0);
    drop(stream);
    until("the stream is gone", || server.view().running == 1).await;
    whole.abort();
    until("the other is gone too", || server.view().running == 0).await;
    let view = server.view();
    assert_eq!((view.used_blocks, view.statistics.aborted), (0, 2));
}

#[tokio::test]
async fn tokens_come_one_by_one_in_real_time() {
    let server = start(ServerProfile { inter_token_latency: Duration::from_millis(30), ..quick() }).await;
    let begin = tokio::time::Instant::now();
    let mut stream = chat(&server, streamed(chat_body("hi", 10))).await;
    stream.chunk().await.unwrap().unwrap();
    let first = begin.elapsed();
    let rest = text(stream).await;
    assert!(rest.ends_with("data: [DONE]\n\n"));
    let all = begin.elapsed();
    assert!(all >= Duration::from_millis(1 + 9 * 30), "{all:?}");
    assert!(all - first >= Duration::from_millis(5 * 30), "the first came long before the last: {first:?} of {all:?}");
}
