//! The access log, as a user reads it.

use serde_json::Value;
use weir_tests::Folder;

use super::server::ModelServer;
use super::{ask, client, start};

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_of_the_access_log() {
    let folder = Folder::new("lines");
    let server = ModelServer::start().await;
    let file = folder.file("access.log");
    let line = format!("--access-log {} --http-body-timeout 1s", file.display());
    let (picker, url) = start(&folder, &server.address.to_string(), &line, &[]).await;
    let client = client();
    let answer = ask(&client, &url).header("x-request-id", "r1").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap()), (200, "r1"));
    weir_tests::text(answer).await.unwrap();
    let made = ask(&client, &url).send().await.unwrap();
    let id = made.headers()["x-request-id"].to_str().unwrap().to_owned();
    weir_tests::text(made).await.unwrap();
    let bad = client.post(format!("{url}/v1/completions")).header("content-type", "application/json").body("{").send().await;
    assert_eq!(bad.unwrap().status(), 400);
    picker.ends_well().await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("nobody else may read"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line["completion_tokens"].as_u64())).collect();
    assert_eq!(told, [(Some(200), Some(3)), (Some(200), Some(3)), (Some(400), None)], "{text}");
    assert!(lines[..2].iter().all(|line| line["reason"].is_null()), "whole answers need no reason: {text}");
    assert_eq!((&lines[0]["request_id"], &lines[1]["request_id"]), (&"r1".into(), &id.into()));
    assert_eq!(lines[0]["endpoint"], server.address.to_string());
    // The model server knows the request by the same name, and for whom it is.
    let heads = server.heads();
    assert_eq!(heads[0]["x-request-id"], "r1");
    assert_eq!(
        (&heads[0]["x-forwarded-for"], &heads[0]["x-forwarded-proto"]),
        (&"127.0.0.1".parse().unwrap(), &"http".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_may_be_standard_output() {
    let folder = Folder::new("lines-stdout");
    let server = ModelServer::start().await;
    let (picker, url) = start(&folder, &server.address.to_string(), "--access-log -", &[]).await;
    weir_tests::text(ask(&client(), &url).send().await.unwrap()).await.unwrap();
    picker.page_until("written", |page| page.contains("weir_epp_access_log_lines_total{outcome=\"written\"} 1")).await;
    super::blocking(move || {
        weir_tests::eventually("the line", || {
            let output = picker.output();
            let line = output.lines().find(|line| line.starts_with('{')).ok_or_else(|| output.clone())?;
            let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            if line["status"] == 200 { Ok(()) } else { Err(output) }
        });
    })
    .await;
}
