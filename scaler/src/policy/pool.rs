//! A pool as the policy sees it.

use std::time::Duration;

use weir_datastore::{EndpointView, FRESH_AT_MOST, Freshness, PoolId, PoolSnapshot, Unknown};

/// What of a pool decides over its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Which pool.
    pub id: PoolId,
    /// Requests that its pickers are known to hold: those of a picker that cannot be read are not in it, and may be more.
    pub held: u64,
    /// How long nothing ran, waited, was held or arrived; or why nobody can say.
    pub idle: Result<Duration, String>,
    /// Its pods that are there to stay, or have no address yet.
    pub pods: usize,
}

impl PoolView {
    /// What `snapshot`, of a whole pool, says.
    pub fn of(snapshot: &PoolSnapshot) -> Self {
        let now = snapshot.taken_at;
        let told = snapshot.pickers.iter().filter_map(|picker| picker.status.load);
        let fresh = told.filter(|load| now.saturating_duration_since(load.read_at) <= FRESH_AT_MOST);
        Self {
            id: snapshot.id.clone(),
            held: fresh.map(|load| load.held.unwrap_or(0)).sum(),
            idle: idle(snapshot),
            pods: snapshot.coverage.present() + snapshot.pending,
        }
    }
}

fn idle(snapshot: &PoolSnapshot) -> Result<Duration, String> {
    let idle = snapshot.idle_seconds().map_err(|unknown| unknown.to_string())?;
    // A picker that is there and was never heard may hold requests: only a pool without one is judged by its servers alone.
    let has_picker = match &snapshot.held {
        Ok(_) => true,
        Err(Unknown::NoPicker) if snapshot.pickers.is_empty() => false,
        Err(unknown) => return Err(unknown.to_string()),
    };
    for endpoint in &snapshot.endpoints {
        proves_idleness(endpoint, has_picker, snapshot)?;
    }
    Ok(Duration::from_secs_f64(idle.value.max(0.0)))
}

/// Whether the pages of `endpoint` would show a request that runs, or one that came and went between two of them.
fn proves_idleness(endpoint: &EndpointView, has_picker: bool, snapshot: &PoolSnapshot) -> Result<(), String> {
    let address = &endpoint.endpoint.spec.address;
    let Some(load) = endpoint.status.load.as_deref() else {
        return Err(format!("{address} is not ready and was never read: it may be running requests"));
    };
    let age = snapshot.taken_at.saturating_duration_since(load.scraped_at);
    if endpoint.freshness == Freshness::Unready && age > FRESH_AT_MOST {
        return Err(format!("{address} is not ready and was read last {} s ago: it may be running requests", age.as_secs()));
    }
    if load.running.is_none() {
        return Err(format!("the page of {address} does not say how many requests it runs"));
    }
    if !has_picker && load.counters.prompt_tokens.is_none() && load.counters.generation_tokens.is_none() {
        return Err(format!(
            "the pool has no picker that counts requests, and the page of {address} has no counter of tokens: a short request would not show"
        ));
    }
    Ok(())
}
