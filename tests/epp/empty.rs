//! What is known of a pool without endpoints, from outside: held requests and idleness, of a picker that holds and of one that does not.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{Folder, Process, Serving, TOKEN, eventually, get, kubectl, text};

use super::MODEL;
use super::rig::{self, Gateway, Picker, blocking};

/// Pools `n/holds` and `n/refuses`, without endpoints; with pickers, if these are given.
fn pools(pickers: Option<[&Picker; 2]>) -> String {
    let pool = |index: usize, name: &str| {
        let picker =
            pickers.map_or(String::new(), |pickers| format!("  pickers: [\"http://{}/metrics\"]\n", pickers[index].metrics));
        format!("- name: {name}\n  namespace: n\n  endpoints: []\n{picker}")
    };
    format!("apiVersion: weir/v1\npools:\n{}{}", pool(0, "holds"), pool(1, "refuses"))
}

/// The value of a family of a pool by the metrics API of `group`.
fn by_api(serving: &Serving, path: &str) -> Result<f64, String> {
    let mut command = Command::new(kubectl());
    command.args(["--server", &format!("https://{}", serving.adapter), "--token", TOKEN, "--certificate-authority"]);
    command.arg(&serving.ca_file).args(["get", "--raw", path]).env("KUBECONFIG", "/nonexistent");
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let list: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let value = list.pointer("/items/0/value").and_then(Value::as_str).ok_or_else(|| list.to_string())?;
    let (digits, factor) = value.strip_suffix('m').map_or((value, 1.0), |milli| (milli, 0.001));
    digits.parse::<f64>().map(|number| number * factor).map_err(|error| format!("{value}: {error}"))
}

fn external(serving: &Serving, metric: &str, pool: &str) -> Result<f64, String> {
    by_api(serving, &format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/n/{metric}?labelSelector=name%3D{pool}"))
}

fn custom(serving: &Serving, metric: &str, pool: &str) -> Result<f64, String> {
    let resource = "inferencepools.inference.networking.k8s.io";
    by_api(serving, &format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/n/{resource}/{pool}/{metric}"))
}

/// Held requests, idle seconds and requests in flight in all, as `address` says of `pool` on its page and as JSON.
fn by_page_and_json(address: &str, pool: &str) -> Result<[(f64, f64); 3], String> {
    let page = get(&format!("http://{address}/metrics"))?;
    let document: Value =
        serde_json::from_str(&get(&format!("http://{address}/api/v1/pools/n/{pool}"))?).map_err(|error| error.to_string())?;
    let of = |family: &str| {
        let on_page = rig::value(&page, &format!("{family}{{name=\"{pool}\",namespace=\"n\"}}"));
        let in_json = document["metrics"][family]["value"].as_f64();
        on_page.zip(in_json).ok_or_else(|| format!("{family}: {on_page:?} {in_json:?} in {page} {document}"))
    };
    Ok([of("inference_pool_held_requests")?, of("inference_pool_idle_seconds")?, of("inference_pool_total_inflight_requests")?])
}

/// The last thing that the stream of `address` says of what the picker of `pool` holds.
fn held_on_stream(address: &str, pool: &str) -> Result<u64, String> {
    let url = format!("http://{address}/api/v1/pools/n/{pool}?watch=1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let frame = runtime.block_on(async {
        let mut answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            line.extend_from_slice(&answer.chunk().await.map_err(|error| error.to_string())?.ok_or("the stream ended")?);
        }
        Ok::<_, String>(line)
    })?;
    let first = frame.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let frame: Value = serde_json::from_slice(first).map_err(|error| error.to_string())?;
    assert_eq!(frame["endpoints"], Value::Null, "no endpoints: {frame}");
    frame["pickers"][0]["held"].as_u64().ok_or_else(|| frame.to_string())
}

/// A picker of the pool `name`, and its own folder.
async fn picker(folder: &Folder, name: &str, line: &str) -> (Picker, Folder) {
    let own = Folder::new(&format!("epp-empty-{name}"));
    let picker =
        Picker::start(&own, &format!("--pool-name {name} --pool-namespace n {line}"), Path::new(&folder.file("pools.yaml"))).await;
    picker.is_ready().await;
    (picker, own)
}

#[tokio::test(flavor = "multi_thread")]
async fn held_and_idle_are_known_everywhere_though_there_is_no_endpoint() {
    let folder = Folder::new("epp-empty");
    folder.write("pools.yaml", &pools(None));
    let (holds, _own) = picker(&folder, "holds", "--hold-empty always").await;
    let (refuses, _own_too) = picker(&folder, "refuses", "--hold-empty never").await;
    let following = folder.write("following.yaml", &pools(Some([&holds, &refuses])));
    let (folder, serving) = blocking(move || {
        let serving = Serving::start(&folder, &following);
        (folder, serving)
    })
    .await;
    let gateways = [
        Gateway::start("epp-empty-holds", holds.ext_proc, "127.0.0.1:1").await,
        Gateway::start("epp-empty-refuses", refuses.ext_proc, "127.0.0.1:1").await,
    ];
    let ask = |gateway: &Gateway| {
        let body = json!({ "model": MODEL, "prompt": "how are you?", "max_tokens": 3 }).to_string();
        gateway.client.post(gateway.url("/v1/completions")).header("content-type", "application/json").body(body).send()
    };
    let addresses = |picker: &Picker| [picker.metrics.to_string(), serving.exporter.clone()];
    let (of_holds, of_refuses) = (addresses(&holds), addresses(&refuses));

    // Nothing is held, and idleness grows, before anybody asked.
    let serving = blocking(move || {
        for (pool, addresses) in [("holds", &of_holds), ("refuses", &of_refuses)] {
            for address in addresses {
                let before = eventually("nothing held", || by_page_and_json(address, pool));
                assert_eq!((before[0], before[2]), ((0.0, 0.0), (0.0, 0.0)), "{pool}");
                eventually("idleness to grow", || match by_page_and_json(address, pool)? {
                    [_, (page, json), _] if page > before[1].0 && json > before[1].1 => Ok(()),
                    same => Err(format!("{same:?}")),
                });
                assert_eq!(held_on_stream(address, pool), Ok(0));
            }
            eventually("the APIs", || {
                for metric in ["inference_pool_held_requests", "inference_pool_total_inflight_requests"] {
                    assert_eq!(
                        (external(&serving, metric, pool)?, custom(&serving, metric, pool)?),
                        (0.0, 0.0),
                        "{metric} of {pool}"
                    );
                }
                let idle = "inference_pool_idle_seconds";
                assert!(external(&serving, idle, pool)? > 0.0 && custom(&serving, idle, pool)? > 0.0);
                Ok(())
            });
        }
        serving
    })
    .await;

    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(ask(&gateways[0]))).collect();
    let refused = ask(&gateways[1]).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["x-llm-d-request-dropped-reason"].to_str().unwrap()),
        (503, "rejected-no-endpoints")
    );
    assert!(text(refused).await.unwrap().contains("failed to find endpoint candidates"));
    let (of_holds, of_refuses) = ([holds.metrics.to_string(), serving.exporter.clone()], refuses.metrics.to_string());
    let serving = blocking(move || {
        for address in &of_holds {
            eventually("3 held, not idle", || match by_page_and_json(address, "holds")? {
                [(3.0, 3.0), (idle, idle_json), (3.0, 3.0)] if idle < 2.0 && idle_json < 2.0 => Ok(()),
                other => Err(format!("{other:?}")),
            });
            assert_eq!(held_on_stream(address, "holds"), Ok(3));
        }
        eventually("3 held by the APIs", || {
            for metric in
                ["inference_pool_held_requests", "inference_pool_total_inflight_requests", "inference_pool_total_queue_size"]
            {
                let both = (external(&serving, metric, "holds")?, custom(&serving, metric, "holds")?);
                if both != (3.0, 3.0) {
                    return Err(format!("{metric}: {both:?}"));
                }
            }
            let saturation = external(&serving, "inference_pool_saturation", "holds")?;
            if saturation == 1.0 { Ok(()) } else { Err(format!("saturation {saturation}")) }
        });
        // Who is refused is not held, but has come: the pool is no longer idle.
        let refuses = by_page_and_json(&of_refuses, "refuses").unwrap();
        assert_eq!((refuses[0], refuses[2]), ((0.0, 0.0), (0.0, 0.0)));
        assert_eq!(external(&serving, "inference_pool_held_requests", "refuses"), Ok(0.0));
        serving
    })
    .await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    holds.ends_well().await;
    refuses.ends_well().await;
    let (ended_well, output) = blocking(move || {
        let ended = Process::terminate(serving.weir);
        drop(folder);
        ended
    })
    .await;
    assert!(ended_well, "{output}");
}
