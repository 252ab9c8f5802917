//! `/livez`, `/healthz`, `/readyz` in the forms Kubernetes' API servers answer with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use percent_encoding::percent_decode_str;

use crate::status::plain;

const PING: &str = "ping";
const SHUTDOWN: &str = "shutdown";
/// Bytes of a reason.
const LONGEST_REASON: usize = 1024;
/// Of the names in `?exclude=` that fit no check, this many are named in the answer.
const MAX_UNKNOWN_NAMED: usize = 8;

/// Whether this process is alive and ready, shared by everything that decides it and every server that tells it.
///
/// Ready is about this process (caches synced, certificates loaded), never about the pools it watches: one hung
/// pool must not take every pool's API away.
#[derive(Clone, Default)]
pub struct Health {
    state: Arc<Mutex<Conditions>>,
}

#[derive(Default)]
struct Conditions {
    /// Each condition ever blocked, by name.
    conditions: BTreeMap<&'static str, Condition>,
    shutting_down: bool,
}

#[derive(Default)]
struct Condition {
    /// How many blockers hold it now.
    blockers: usize,
    /// Why, in words that everyone may read.
    reason: Option<String>,
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").field("not_ready", &self.not_ready()).finish()
    }
}

/// Readiness waits while this exists; drop it once the condition holds. Blocking the same condition again later is
/// fine.
#[must_use = "dropping a blocker declares its condition met"]
pub struct Blocker {
    health: Health,
    name: &'static str,
}

impl fmt::Debug for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Blocker").field(&self.name).finish()
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let met = match self.health.lock().conditions.get_mut(self.name) {
            Some(condition) => {
                condition.blockers = condition.blockers.saturating_sub(1);
                let met = condition.blockers == 0;
                if met {
                    condition.reason = None;
                }
                met
            }
            None => false,
        };
        if met {
            tracing::info!(condition = self.name, still_waiting_for = ?self.health.not_ready(), "readiness condition met");
        }
    }
}

impl Blocker {
    /// Why it still blocks, told to whoever asks `/readyz`: name objects and ways out, nothing secret. The last reason
    /// of a condition stands.
    pub fn because(&self, reason: impl Into<String>) {
        let mut reason: String = reason.into().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        if let Some(condition) = self.health.lock().conditions.get_mut(self.name) {
            condition.reason = Some(reason);
        }
    }
}

impl Health {
    /// Alive and ready until something blocks it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the returned guard is dropped. `name` shows as a check of `/readyz` from now on
    /// (`informer-sync` is Kubernetes' name for synced caches).
    pub fn block(&self, name: &'static str) -> Blocker {
        self.lock().conditions.entry(name).or_default().blockers += 1;
        Blocker { health: self.clone(), name }
    }

    /// Never ready again: called by a server that starts to drain.
    pub fn shut_down(&self) {
        self.lock().shutting_down = true;
    }

    /// Names of the checks that keep it from being ready; empty means ready.
    pub fn not_ready(&self) -> Vec<&'static str> {
        let checks = self.checks(Endpoint::Ready);
        let failing = checks.into_iter().filter(|check| !check.passed);
        failing.map(|check| check.name).collect()
    }

    /// The routes `/livez`, `/healthz`, `/readyz` and `/ENDPOINT/CHECK`.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for endpoint in [Endpoint::Live, Endpoint::Health, Endpoint::Ready] {
            let path = endpoint.path();
            let all = move |State(health): State<Health>, RawQuery(query): RawQuery| async move {
                answer_all(endpoint, health.checks(endpoint), query.as_deref().unwrap_or(""))
            };
            let one = move |State(health): State<Health>, Path(name): Path<String>| async move {
                answer_one(&health.checks(endpoint), &name)
            };
            router = router.route(&format!("/{path}"), get(all)).route(&format!("/{path}/{{*check}}"), get(one));
        }
        router.with_state(self.clone())
    }

    fn checks(&self, endpoint: Endpoint) -> Vec<Check> {
        let mut checks = vec![Check { name: PING, passed: true, reason: None }];
        if endpoint == Endpoint::Ready {
            let state = self.lock();
            checks.extend(state.conditions.iter().map(|(name, condition)| Check {
                name,
                passed: condition.blockers == 0,
                reason: condition.reason.clone(),
            }));
            checks.push(Check { name: SHUTDOWN, passed: !state.shutting_down, reason: None });
        }
        checks
    }

    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Live,
    Health,
    Ready,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Health => "healthz",
            Self::Ready => "readyz",
        }
    }
}

struct Check {
    name: &'static str,
    passed: bool,
    reason: Option<String>,
}

fn answer_all(endpoint: Endpoint, checks: Vec<Check>, query: &str) -> Response {
    let query = HealthQuery::parse(query);
    let mut unknown: BTreeSet<&str> = query.exclude.iter().map(String::as_str).collect();
    let mut lines = String::new();
    let mut passed = true;
    for check in &checks {
        let name = check.name;
        lines += &if unknown.remove(name) {
            format!("[+]{name} excluded: ok\n")
        } else if check.passed {
            format!("[+]{name} ok\n")
        } else {
            passed = false;
            // Anyone may ask: what was not written for everyone is in the log.
            format!("[-]{name} failed: {}\n", check.reason.as_deref().unwrap_or("reason withheld"))
        };
    }
    if !unknown.is_empty() {
        let named: Vec<String> = unknown.iter().take(MAX_UNKNOWN_NAMED).map(|name| format!("{name:?}")).collect();
        lines += &format!("warn: some health checks cannot be excluded: no matches for {}\n", named.join(","));
    }
    let path = endpoint.path();
    if !passed {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{path} check failed\n"));
    }
    if query.verbose { plain(StatusCode::OK, format!("{lines}{path} check passed\n")) } else { plain(StatusCode::OK, "ok") }
}

fn answer_one(checks: &[Check], name: &str) -> Response {
    match checks.iter().find(|check| check.name == name) {
        Some(check) if check.passed => plain(StatusCode::OK, "ok"),
        Some(check) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {} is not ready\n", check.name)),
        None => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[derive(Default)]
struct HealthQuery {
    verbose: bool,
    exclude: Vec<String>,
}

impl HealthQuery {
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "verbose" => parsed.verbose = true,
                "exclude" => {
                    let name = value.replace('+', " ");
                    let name = percent_decode_str(&name).decode_utf8_lossy().into_owned();
                    parsed.exclude.push(name);
                }
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;

    async fn get(health: &Health, uri: &str) -> (u16, String) {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = health.router().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await;
        (code, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_forms_of_an_api_server() {
        let health = Health::new();
        let synced = health.block("informer-sync");
        for path in ["/livez", "/healthz"] {
            assert_eq!(get(&health, path).await, (200, "ok".into()));
        }
        assert_eq!(get(&health, "/livez?verbose").await, (200, "[+]ping ok\nlivez check passed\n".into()));
        let not_ready = "[+]ping ok\n[-]informer-sync failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n";
        assert_eq!(get(&health, "/readyz").await, (500, not_ready.into()));
        assert_eq!(get(&health, "/readyz?exclude=informer-sync").await, (200, "ok".into()));
        assert_eq!(
            get(&health, "/readyz?verbose=1&exclude=informer%2Dsync&exclude=nonsense").await,
            (
                200,
                "[+]ping ok\n[+]informer-sync excluded: ok\n[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"nonsense\"\nreadyz check passed\n".into()
            )
        );
        assert_eq!(get(&health, "/readyz/informer-sync").await.0, 500);
        assert_eq!(get(&health, "/readyz/ping").await, (200, "ok".into()));
        assert_eq!(get(&health, "/readyz/nonsense").await.0, 404);
        assert_eq!(get(&health, "/livez/informer-sync").await.0, 404);

        drop(synced);
        assert_eq!(get(&health, "/readyz").await, (200, "ok".into()));
        assert_eq!(get(&health, "/readyz/informer-sync").await, (200, "ok".into()));

        health.shut_down();
        assert_eq!(health.not_ready(), ["shutdown"]);
        assert_eq!(get(&health, "/readyz").await.0, 500);
        assert_eq!(get(&health, "/livez").await.0, 200);
    }

    #[test]
    fn a_condition_holds_once_its_last_blocker_is_gone() {
        let health = Health::new();
        let [one, two] = [health.block("cache"), health.block("cache")];
        drop(one);
        assert_eq!(health.not_ready(), ["cache"]);
        drop(two);
        assert!(health.not_ready().is_empty());
        let again = health.block("cache");
        again.because("Secret a/b\nis not there");
        let lines: Vec<_> = health.checks(Endpoint::Ready).into_iter().filter_map(|check| check.reason).collect();
        assert_eq!(lines, ["Secret a/b is not there"]);
        assert_eq!(health.not_ready(), ["cache"]);
        drop(again);
        assert!(health.checks(Endpoint::Ready).iter().all(|check| check.reason.is_none()));
    }

    proptest! {
        #[test]
        fn any_query_gets_a_bounded_answer(query in ".{0,300}") {
            let checks = || Health::new().checks(Endpoint::Ready);
            let response = answer_all(Endpoint::Ready, checks(), &query);
            prop_assert_eq!(response.status(), StatusCode::OK);
        }
    }
}
