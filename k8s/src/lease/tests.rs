//! Elections over a small API server in memory, in paused time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{advance, sleep};

use super::*;

/// One Lease, with versions and refusals as the API server's.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<(Option<Value>, u64)>>);

impl Store {
    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let (lease, version) = &mut *self.0.lock().unwrap();
        let mut sent: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
        match (method, &*lease) {
            (&Method::GET, Some(lease)) => return (StatusCode::OK, lease.clone()),
            (&Method::POST, Some(_)) => return refused(StatusCode::CONFLICT, "AlreadyExists"),
            (&Method::GET | &Method::PUT, None) => return refused(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::PUT, Some(lease)) if sent["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] => {
                return refused(StatusCode::CONFLICT, "Conflict");
            }
            _ => {}
        }
        *version += 1;
        sent["metadata"]["resourceVersion"] = json!(version.to_string());
        *lease = Some(sent.clone());
        (StatusCode::OK, sent)
    }

    /// What somebody with kubectl does.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let (lease, version) = &mut *self.0.lock().unwrap();
        *version += 1;
        let lease = lease.as_mut().unwrap();
        change(lease);
        lease["metadata"]["resourceVersion"] = json!(version.to_string());
    }

    fn delete(&self) {
        self.0.lock().unwrap().0 = None;
    }

    fn holder(&self) -> Option<String> {
        Some(self.0.lock().unwrap().0.as_ref()?["spec"]["holderIdentity"].as_str()?.to_owned())
    }
}

fn refused(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    (code, json!({ "kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason }))
}

/// The way to the API server: milliseconds before a request arrives and before its answer does. `AWAY` loses it.
#[derive(Clone, Default)]
struct Way {
    there: Arc<AtomicU64>,
    back: Arc<AtomicU64>,
}

const AWAY: u64 = u64::MAX;

impl Way {
    fn set(&self, there: u64, back: u64) {
        self.there.store(there, Ordering::Relaxed);
        self.back.store(back, Ordering::Relaxed);
    }

    async fn pass(time: &AtomicU64) {
        match time.load(Ordering::Relaxed) {
            0 => {}
            AWAY => std::future::pending().await,
            time => sleep(Duration::from_millis(time)).await,
        }
    }

    fn client(&self, store: &Store) -> Client {
        let (way, store) = (self.clone(), store.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (way, store) = (way.clone(), store.clone());
            // On a task of its own: what was sent arrives, whoever waits for the answer.
            tokio::spawn(async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Way::pass(&way.there).await;
                let (code, answer) = store.answer(&parts.method, &body);
                Way::pass(&way.back).await;
                Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap()
            })
        });
        Client::new(service, "ns")
    }
}

struct Candidate {
    way: Way,
    stop: CancellationToken,
    leadership: Leadership,
    leader: Leader,
}

fn stands(store: &Store, name: &str) -> Candidate {
    let (way, stop) = (Way::default(), CancellationToken::new());
    let settings = LeaseSettings::new("ns", "lock", name);
    let leadership = Leadership::run(way.client(store), settings, LeaseMetrics::default(), stop.clone()).unwrap();
    let leader = leadership.leader();
    Candidate { way, stop, leadership, leader }
}

async fn leads_within(leader: &mut Leader, leads: bool, time: Duration) -> Duration {
    let began = Instant::now();
    timeout(time, leader.changed(!leads)).await.unwrap_or_else(|_| panic!("{leads} within {time:?}"));
    began.elapsed()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over_when_it_stops() {
    let store = Store::default();
    let mut one = stands(&store, "one");
    leads_within(&mut one.leader, true, SECOND).await;
    let mut two = stands(&store, "two");
    sleep(60 * SECOND).await;
    assert!(one.leader.leads() && !two.leader.leads());
    assert_eq!(two.leader.write(async {}).await, Err(NotLeading::Before));
    // A write that has begun ends before another replica begins.
    let writer = one.leader.clone();
    let write = tokio::spawn(async move {
        writer.write(sleep(3 * SECOND)).await.unwrap();
        Instant::now()
    });
    tokio::task::yield_now().await;
    one.stop.cancel();
    assert!(!one.leader.leads());
    assert_eq!(one.leader.write(async {}).await, Err(NotLeading::Before));
    let took_over = async {
        leads_within(&mut two.leader, true, 6 * SECOND).await;
        Instant::now()
    };
    let (began, wrote, ()) = tokio::join!(took_over, write, one.leadership.ended());
    assert!(wrote.unwrap() <= began);
    assert_eq!(store.holder().as_deref(), Some("two"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_ends_before_another_begins() {
    let store = Store::default();
    let mut one = stands(&store, "one");
    leads_within(&mut one.leader, true, SECOND).await;
    let mut two = stands(&store, "two");
    sleep(20 * SECOND).await;
    one.way.set(AWAY, 0);
    let writer = one.leader.clone();
    let write = tokio::spawn(async move { writer.write(std::future::pending::<()>()).await });
    let lost = leads_within(&mut one.leader, false, 10 * SECOND).await;
    assert!(lost >= 7 * SECOND, "{lost:?}");
    assert_eq!(write.await.unwrap(), Err(NotLeading::TooLong), "5 s are what one write may take");
    let more = leads_within(&mut two.leader, true, 10 * SECOND).await;
    assert!(more >= 5 * SECOND, "{more:?}");
    // It is back: it follows.
    one.way.set(0, 0);
    sleep(10 * SECOND).await;
    assert!(!one.leader.leads() && two.leader.leads());
    two.stop.cancel();
    leads_within(&mut one.leader, true, 3 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_ends_with_the_term() {
    let store = Store::default();
    let mut one = stands(&store, "one");
    leads_within(&mut one.leader, true, SECOND).await;
    one.way.set(0, AWAY);
    sleep(8 * SECOND).await;
    assert!(one.leader.leads());
    let began = Instant::now();
    assert_eq!(one.leader.write(std::future::pending::<()>()).await, Err(NotLeading::During));
    assert!(began.elapsed() <= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_is_given_up_and_an_edited_or_deleted_one_is_kept() {
    let store = Store::default();
    let mut one = stands(&store, "one");
    leads_within(&mut one.leader, true, SECOND).await;
    store.edit(|lease| lease["metadata"]["annotations"] = json!({ "somebody": "wrote" }));
    sleep(20 * SECOND).await;
    assert!(one.leader.leads());
    store.delete();
    sleep(20 * SECOND).await;
    assert!(one.leader.leads() && store.holder().as_deref() == Some("one"));
    store.edit(|lease| lease["spec"]["holderIdentity"] = json!("thief"));
    leads_within(&mut one.leader, false, 3 * SECOND).await;
    assert_eq!(store.holder().as_deref(), Some("thief"));
    // The thief never renews.
    leads_within(&mut one.leader, true, 18 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_process_does_not_lead_even_before_it_notices() {
    let store = Store::default();
    let mut one = stands(&store, "one");
    leads_within(&mut one.leader, true, SECOND).await;
    one.way.set(AWAY, AWAY);
    // The election's own task has not run since.
    advance(11 * SECOND).await;
    assert!(!one.leader.leads());
    assert_eq!(one.leader.write(async {}).await, Err(NotLeading::Before));
}

/// Three candidates, an API server that is slow, away, or loses answers at random for each of them, and hands that edit and delete:
/// at no moment do two lead. Deletion excepted: whoever deletes a Lease lets the next one in at once.
#[tokio::test(start_paused = true)]
async fn never_two_lead_at_once() {
    let mut led = [0; 3];
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let store = Store::default();
        let candidates: [Candidate; 3] = ["a", "b", "c"].map(|name| stands(&store, name));
        for _ in 0..1500 {
            sleep(Duration::from_millis(200)).await;
            let leading: Vec<usize> = (0..3).filter(|index| candidates[*index].leader.leads()).collect();
            assert!(leading.len() <= 1, "seed {seed}: {leading:?}");
            for index in leading {
                led[index] += 1;
            }
            if rng.random_bool(0.05) {
                let some = [0, 0, 0, 100, 1500, 4000, AWAY];
                let [there, back] = [(); 2].map(|()| some[rng.random_range(0..some.len())]);
                candidates[rng.random_range(0..3)].way.set(there, back);
            }
            if rng.random_bool(0.01) && store.holder().is_some() {
                store.edit(|lease| lease["metadata"]["labels"] = json!({ "edited": "by-hand" }));
            }
        }
    }
    assert!(led.iter().all(|times| *times > 100), "each led at some time: {led:?}");
}

#[tokio::test]
async fn settings_under_which_two_could_lead_are_refused() {
    let good = LeaseSettings::new("ns", "lock", "me");
    let bad = [
        LeaseSettings { renew_deadline: 15 * SECOND, ..good.clone() },
        LeaseSettings { retry_period: 6 * SECOND, ..good.clone() },
        LeaseSettings { retry_period: Duration::ZERO, ..good.clone() },
        LeaseSettings { lease_duration: Duration::from_millis(15_500), ..good.clone() },
        LeaseSettings { identity: String::new(), ..good },
    ];
    for settings in bad {
        let client = Way::default().client(&Store::default());
        let refused = Leadership::run(client, settings, LeaseMetrics::default(), CancellationToken::new());
        assert!(refused.unwrap_err().to_string().starts_with("lease ns/lock: "));
    }
    let rng = &mut StdRng::seed_from_u64(1);
    assert_ne!(LeaseSettings::identity("pod", rng), LeaseSettings::identity("pod", rng));
}
