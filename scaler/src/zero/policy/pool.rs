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
    // A picker that was never heard may hold requests: only a pool without one is judged by its servers alone.
    let has_picker = snapshot.has_picker;
    match &snapshot.held {
        Err(Unknown::NoPicker) if !has_picker => {}
        Err(Unknown::NoPicker) => return Err(silent(snapshot)),
        Err(unknown) => return Err(unknown.to_string()),
        Ok(_) => {}
    }
    for endpoint in &snapshot.endpoints {
        proves_idleness(endpoint, has_picker, snapshot)?;
    }
    Ok(Duration::from_secs_f64(idle.value.max(0.0)))
}

/// Why a pool's pickers say nothing.
fn silent(snapshot: &PoolSnapshot) -> String {
    let failure = snapshot.pickers.iter().find_map(|picker| picker.status.failure.as_ref());
    match failure {
        Some(failure) => format!("its endpoint picker cannot be read: {}", failure.message),
        None if snapshot.pickers.is_empty() => "its endpoint picker is not found, or not ready: see endpointPickerRef".to_owned(),
        None => "its endpoint picker has not said anything yet".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;
    use weir_datastore::engine::Engine;
    use weir_datastore::{
        Combined, Counters, EndpointLoad, EndpointSpec, EndpointState, FailureKind, PickerLoad, PoolSpec, Selector, datastore,
    };

    use super::*;

    /// State of an endpoint, and what its page says if it has one: requests that run, tokens generated.
    type Server = (EndpointState, Option<(Option<f64>, Option<f64>)>);

    const SECOND: Duration = Duration::from_secs(1);

    /// A pool with these endpoints, whose pages say this much, and pickers; all read at 0 s and at `after`, and looked at then.
    fn viewed(endpoints: &[Server], pickers: Option<&[Option<PickerLoad>]>, after: Duration) -> PoolView {
        let start = Instant::now() + Duration::from_secs(3600);
        let (store, mut topology) = datastore();
        let mut spec = PoolSpec::empty(PoolId::new("n", "p"));
        spec.endpoints = (0..endpoints.len())
            .map(|index| EndpointSpec {
                state: endpoints[index].0,
                ..EndpointSpec::standalone(format!("10.0.0.{}:8000", index + 1).parse().unwrap())
            })
            .collect();
        spec.pickers = pickers.map(|pickers| (0..pickers.len()).map(|index| Arc::from(format!("epp-{index}"))).collect());
        let mut change = topology.upsert(spec, start);
        for at in [start, start + after] {
            for (writer, (_, page)) in change.added.iter_mut().zip(endpoints) {
                let Some((running, tokens)) = page else { continue };
                let load = EndpointLoad {
                    engine: Engine::Vllm,
                    scraped_at: at,
                    running: running.map(|value| Combined { value, hottest: value }),
                    waiting: None,
                    kv_cache_utilization: None,
                    counters: Counters { generation_tokens: *tokens, ..Counters::default() },
                    lora: None,
                    units: Vec::new(),
                    unused: Default::default(),
                };
                writer.succeeded(load, SECOND);
            }
            for (writer, load) in change.added_pickers.iter_mut().zip(pickers.into_iter().flatten()) {
                match load {
                    Some(load) => writer.succeeded(PickerLoad { read_at: at, ..*load }, SECOND),
                    None => writer.failed(FailureKind::Connect, "refused", at),
                }
            }
        }
        PoolView::of(&store.snapshot(&PoolId::new("n", "p"), &Selector::everything(), start + after).unwrap())
    }

    fn picker(held: Option<u64>) -> Option<PickerLoad> {
        Some(PickerLoad { read_at: Instant::now(), held, in_flight: None, arrivals: 7, prompt_tokens: None })
    }

    const IDLE: Server = (EndpointState::Ready, Some((Some(0.0), Some(9.0))));

    #[test]
    fn an_idle_pool_is_one_that_all_can_be_asked_about() {
        let hour = Duration::from_secs(3600);
        let view = viewed(&[IDLE, IDLE], Some(&[picker(Some(0))]), hour);
        assert_eq!((view.idle, view.held, view.pods), (Ok(hour), 0, 2));
        // A picker without flow control holds nothing, and counts what arrives.
        assert_eq!(viewed(&[IDLE], Some(&[picker(None)]), hour).idle, Ok(hour));
        // At zero too.
        assert_eq!(viewed(&[], Some(&[picker(Some(0))]), hour).idle, Ok(hour));
        let running = (EndpointState::Ready, Some((Some(1.0), Some(9.0))));
        assert_eq!(viewed(&[IDLE, running], Some(&[picker(Some(0))]), hour).idle, Ok(Duration::ZERO));
        assert_eq!(
            viewed(&[IDLE, (EndpointState::Terminating, running.1)], Some(&[picker(Some(0))]), hour).idle,
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn what_cannot_be_read_may_be_doing_something() {
        let hour = Duration::from_secs(3600);
        let told = Some(vec![picker(Some(0))]);
        for (endpoints, pickers, words) in [
            (vec![IDLE, (EndpointState::Ready, None)], told.clone(), "fresh metrics"),
            (vec![IDLE, (EndpointState::Unready, None)], told.clone(), "10.0.0.2:8000 is not ready and was never read"),
            (vec![(EndpointState::Ready, Some((None, Some(1.0))))], told.clone(), "does not say how many requests it runs"),
            (vec![IDLE], Some(vec![None]), "its endpoint picker cannot be read: refused"),
            (vec![IDLE], Some(Vec::new()), "its endpoint picker is not found"),
            (vec![IDLE], Some(vec![picker(Some(0)), None]), "refused"),
            (vec![(EndpointState::Ready, Some((Some(0.0), None)))], None, "no picker that counts requests"),
        ] {
            let idle = viewed(&endpoints, pickers.as_deref(), hour).idle;
            assert!(idle.as_ref().is_err_and(|cause| cause.contains(words)), "{words}: {idle:?}");
        }
        // Without a picker its counters of tokens speak.
        assert_eq!(viewed(&[IDLE], None, hour).idle, Ok(hour));
    }

    #[test]
    fn one_picker_that_holds_is_enough() {
        let view = viewed(&[], Some(&[picker(Some(3)), None]), SECOND);
        assert_eq!((view.held, view.pods), (3, 0));
        assert!(view.idle.is_err());
    }
}
