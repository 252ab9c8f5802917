//! `--unknown-models=refuse`: what the servers of the pool list on `/v1/models`, told to the director.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use weir_collector::WantedPools;
use weir_datastore::{EndpointState, PoolId};
use weir_epp::director::{KnownModels, PoolDirector};

use super::options::ModelServerMetrics;

/// How often servers are asked: adapters may be loaded while they run.
const ASK: Duration = Duration::from_secs(5);
/// How long one may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest list.
const MOST_BYTES: usize = 1 << 20;
/// Servers that are asked at a time.
const AT_ONCE: usize = 16;

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// Asks every ready server now and then, for ever.
pub(super) async fn follow(mut wanted: WantedPools, pool: PoolId, servers: ModelServerMetrics, director: PoolDirector) {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).danger_accept_invalid_certs(servers.insecure_skip_verify);
    let client = match client.redirect(reqwest::redirect::Policy::none()).build() {
        Ok(client) => client,
        Err(error) => return warn!(%error, "servers cannot be asked for their models: requests for every model pass"),
    };
    let mut ticks = interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<String> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
        let ready: Vec<String> = wanted
            .borrow_and_update()
            .iter()
            .filter(|known| known.spec.id == pool)
            .flat_map(|known| &known.spec.endpoints)
            .filter(|endpoint| endpoint.state == EndpointState::Ready)
            .map(|endpoint| endpoint.address.as_str().to_owned())
            .collect();
        let mut lists: HashMap<String, Result<Vec<String>, String>> = HashMap::new();
        for some in ready.chunks(AT_ONCE) {
            let mut asked = JoinSet::new();
            for address in some {
                let (client, servers, address) = (client.clone(), servers.clone(), address.clone());
                asked.spawn(async move {
                    let list = models(&client, &servers, &address).await;
                    (address, list)
                });
            }
            lists.extend(asked.join_all().await);
        }
        let problem = lists.iter().find_map(|(address, list)| Some(format!("{address}: {}", list.as_ref().err()?)));
        director.know_models(KnownModels::of(ready.iter().map(|address| lists.get(address.as_str())?.as_deref().ok())));
        match (&problem, &told) {
            (Some(problem), before) if before.as_ref() != Some(problem) => {
                warn!(problem, "not every server lists its models: requests for every model pass");
            }
            (None, Some(_)) => info!("every server lists its models: requests for others are refused"),
            _ => {}
        }
        told = problem;
    }
}

/// The models that a server lists.
async fn models(client: &reqwest::Client, servers: &ModelServerMetrics, address: &str) -> Result<Vec<String>, String> {
    let told = |error: reqwest::Error| weir_k8s::told(&error);
    let url = format!("{}://{address}/v1/models", servers.scheme.as_str());
    let mut answer = client.get(url).send().await.map_err(told)?;
    if !answer.status().is_success() {
        return Err(format!("/v1/models answers {}", answer.status()));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(told)? {
        if body.len() + piece.len() > MOST_BYTES {
            return Err(format!("/v1/models is longer than {MOST_BYTES} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    let list: List = serde_json::from_slice(&body).map_err(|error| format!("/v1/models is no list of models: {error}"))?;
    Ok(list.data.into_iter().map(|entry| entry.id).collect())
}
