//! Who may call: an ordered list of ways to prove an identity; the first that succeeds names the caller.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::SystemTime};

use axum::{extract::Request, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header, request::Parts};

use crate::{ConnectionInfo, PeerCertificate, Reload, ServeError, ServingMetrics, status};

/// Group of everyone who proved an identity, as in Kubernetes.
const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Beginning of the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…`.
const IMPERSONATION: &str = "impersonate-";

/// Who is calling: an extension of every request that reaches the router, and of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User name, in Kubernetes' terms.
    pub name: Arc<str>,
    /// Groups; `system:authenticated` is among them once an identity was proved.
    pub groups: Arc<[String]>,
    /// What identifies the user over time, where the proof told it.
    pub uid: Option<Arc<str>>,
    /// What else the proof told, as Kubernetes' reviews carry it: several values under each key.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

impl Caller {
    /// A caller of this name and these groups.
    pub fn new(name: impl Into<Arc<str>>, groups: impl IntoIterator<Item = String>) -> Self {
        Self { name: name.into(), groups: groups.into_iter().collect(), uid: None, extra: Arc::default() }
    }

    /// The same caller with this `uid`.
    #[must_use]
    pub fn with_uid(self, uid: Option<impl Into<Arc<str>>>) -> Self {
        Self { uid: uid.map(Into::into), ..self }
    }

    /// The same caller with these extra attributes.
    #[must_use]
    pub fn with_extra(self, extra: BTreeMap<String, Vec<String>>) -> Self {
        Self { extra: Arc::new(extra), ..self }
    }

    /// Whether the caller belongs to `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Whether no identity was proved.
    pub fn is_anonymous(&self) -> bool {
        &*self.name == ANONYMOUS
    }

    fn anonymous() -> Self {
        Self::new(ANONYMOUS, [UNAUTHENTICATED.to_owned()])
    }

    fn authenticated(self) -> Self {
        if self.is_in(AUTHENTICATED) {
            return self;
        }
        let groups = self.groups.iter().cloned().chain([AUTHENTICATED.into()]);
        Self { groups: groups.collect(), ..self }
    }
}

/// What one authenticator says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request proves this identity.
    Accepted(Caller),
    /// The request carries nothing this authenticator judges: the next one is asked.
    NoOpinion,
    /// The request carries a proof that does not hold. The next one is asked all the same. The reason is logged,
    /// never told to the caller.
    Rejected(&'static str),
}

/// A verdict that may have to be waited for.
pub type Decision<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// One way to prove an identity.
pub trait Authenticator: Send + Sync + 'static {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Judges a request by its head and its connection (extensions `ConnectionInfo`, `PeerCertificate`). `now` is
    /// wall time.
    fn authenticate<'a>(&'a self, request: &'a Parts, now: SystemTime) -> Decision<'a>;

    /// Whether it reads [`PeerCertificate`]: then the server must ask for client certificates.
    fn needs_client_certificates(&self) -> bool {
        false
    }

    /// Whether it accepts a secret that everyone on the path can read without TLS.
    fn needs_confidentiality(&self) -> bool {
        false
    }

    /// Takes out the headers in which it reads proofs, whoever was believed: nothing further in can take them for
    /// true. `Authorization` goes in any case.
    fn scrub(&self, _headers: &mut HeaderMap) {}

    /// Looks again at files it depends on; called every few seconds from a thread that may block.
    fn refresh(&self) -> Option<Reload> {
        None
    }
}

/// Who may call a server.
#[derive(Clone, Default)]
pub enum Authentication {
    /// Everyone on this machine. Refused at bind when the address is not a loopback address.
    #[default]
    OpenOnLoopback,
    /// Everyone who reaches the address: for pages that hold nothing secret, such as a Prometheus target's.
    Everyone,
    /// Whoever one of these accepts; asked in this order, the first success wins.
    AnyOf(Vec<Arc<dyn Authenticator>>),
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.authenticators().iter().map(|one| one.name());
        match self {
            Self::OpenOnLoopback => formatter.write_str("OpenOnLoopback"),
            Self::Everyone => formatter.write_str("Everyone"),
            Self::AnyOf(_) => formatter.debug_list().entries(names).finish(),
        }
    }
}

impl Authentication {
    pub(crate) fn authenticators(&self) -> &[Arc<dyn Authenticator>] {
        match self {
            Self::OpenOnLoopback | Self::Everyone => &[],
            Self::AnyOf(authenticators) => authenticators,
        }
    }

    /// Whether this is enough for a server there.
    pub(crate) fn check(&self, address: SocketAddr, tls: bool, asks_for_client_certificates: bool) -> Result<(), ServeError> {
        let setting = |problem: &str| ServeError::Setting { setting: "authentication", problem: problem.into() };
        // An IPv4 loopback address may be written as IPv6.
        let on_loopback = address.ip().to_canonical().is_loopback();
        let authenticators = match self {
            Self::Everyone => return Ok(()),
            Self::OpenOnLoopback if on_loopback => return Ok(()),
            Self::OpenOnLoopback => return Err(ServeError::OpenToOthers { address }),
            Self::AnyOf(authenticators) => authenticators,
        };
        if authenticators.is_empty() {
            return Err(setting("nobody could call: name at least one way (--token-file, --client-ca-file)"));
        }
        let wanted = authenticators.iter().any(|one| one.needs_client_certificates());
        if wanted && !asks_for_client_certificates {
            return Err(setting("client certificates need TLS and the authorities that issue them (--client-ca-file)"));
        }
        let secret = authenticators.iter().any(|one| one.needs_confidentiality());
        if secret && !tls && !on_loopback {
            tracing::warn!(%address, "bearer tokens are accepted without TLS, everyone on the path can read them");
        }
        Ok(())
    }
}

/// Accepts a client certificate that the handshake verified: user = common name, groups = organisations. One
/// without a common name is no opinion; one that ended since the handshake is rejected.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

impl Authenticator for ClientCertificates {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, now: SystemTime) -> Decision<'a> {
        let verdict = match request.extensions.get::<PeerCertificate>() {
            None => Verdict::NoOpinion,
            Some(peer) if peer.common_name.is_empty() => Verdict::NoOpinion,
            Some(peer) if peer.not_after <= now => Verdict::Rejected("client certificate expired"),
            Some(peer) => Verdict::Accepted(Caller {
                groups: Arc::clone(&peer.organizations),
                ..Caller::new(Arc::clone(&peer.common_name), [])
            }),
        };
        Box::pin(std::future::ready(verdict))
    }

    fn needs_client_certificates(&self) -> bool {
        true
    }
}

/// What authentication needs.
pub(crate) struct Gate {
    pub(crate) authentication: Authentication,
    pub(crate) metrics: ServingMetrics,
    pub(crate) component: &'static str,
    /// Whether a request without any proof goes on as `system:anonymous`, for a review to decide about.
    pub(crate) anonymous: bool,
}

/// 401, or the request with its [`Caller`] and without the headers that prove it.
pub(crate) async fn authenticate<F>(gate: &Gate, request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let (mut parts, body) = request.into_parts();
    let caller = match &gate.authentication {
        Authentication::OpenOnLoopback | Authentication::Everyone => Caller::anonymous(),
        Authentication::AnyOf(authenticators) => match first_success(authenticators, &parts, SystemTime::now()).await {
            Ok(caller) => {
                gate.metrics.count_authentication(gate.component, "success");
                caller.authenticated()
            }
            // Whoever fails to prove an identity is not let in as nobody.
            Err(false) if gate.anonymous => {
                gate.metrics.count_authentication(gate.component, "failure");
                Caller::anonymous()
            }
            Err(rejected) => {
                let result = if rejected { "error" } else { "failure" };
                gate.metrics.count_authentication(gate.component, result);
                return unauthorized(&parts);
            }
        },
    };
    if let Some(header) = parts.headers.keys().find(|name| name.as_str().starts_with(IMPERSONATION)) {
        return impersonation_refused(header.as_str());
    }
    if let Some(connection) = parts.extensions.get::<ConnectionInfo>() {
        if gate.anonymous && caller.is_anonymous() {
            // One request, and the connection goes away: see `unauthorized`.
            connection.close();
        } else {
            connection.prove();
        }
    }
    // The proof has done its work: nothing further in can log, forward or believe it.
    parts.headers.remove(header::AUTHORIZATION);
    for authenticator in gate.authentication.authenticators() {
        authenticator.scrub(&mut parts.headers);
    }
    parts.extensions.insert(caller.clone());
    let mut response = next(Request::from_parts(parts, body)).await;
    response.extensions_mut().insert(caller);
    response
}

/// The caller, or whether any proof was rejected.
async fn first_success(authenticators: &[Arc<dyn Authenticator>], request: &Parts, now: SystemTime) -> Result<Caller, bool> {
    let mut rejected = false;
    for authenticator in authenticators {
        match authenticator.authenticate(request, now).await {
            Verdict::Accepted(caller) => return Ok(caller),
            Verdict::NoOpinion => {}
            Verdict::Rejected(reason) => {
                tracing::debug!(authenticator = authenticator.name(), reason, "authentication rejected");
                rejected = true;
            }
        }
    }
    Err(rejected)
}

/// 403: acting for someone else is the API server's to allow, and it does so before it forwards a request. To ignore
/// the header would be to answer as the wrong user.
fn impersonation_refused(header: &str) -> Response {
    let message = format!("forbidden: {header} is not served here: send impersonated requests through the Kubernetes API server");
    status::failure(StatusCode::FORBIDDEN, "Forbidden", &message)
}

/// 401, and the connection goes away: streams of requests from unknown clients are how HTTP/2 servers are flooded.
fn unauthorized(request: &Parts) -> Response {
    let mut response = status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    if let Some(connection) = request.extensions.get::<ConnectionInfo>() {
        connection.close();
    }
    if request.version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(common_name: &str, not_after: SystemTime) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.extensions.insert(PeerCertificate {
            common_name: common_name.into(),
            organizations: vec!["boards".to_owned()].into(),
            not_after,
        });
        parts
    }

    struct Fixed(Verdict);

    impl Authenticator for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }
        fn authenticate<'a>(&'a self, _: &'a Parts, _: SystemTime) -> Decision<'a> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    #[tokio::test]
    async fn a_verified_certificate_names_the_caller_until_it_ends() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let before = end - Duration::from_secs(1);
        let judge = async |parts: Parts, now| ClientCertificates.authenticate(&parts, now).await;
        assert_eq!(judge(peer("reader", end), before).await, Verdict::Accepted(Caller::new("reader", ["boards".to_owned()])));
        assert!(matches!(judge(peer("reader", end), end).await, Verdict::Rejected(_)));
        assert_eq!(judge(peer("", end), before).await, Verdict::NoOpinion);
        let (nothing, ()) = http::Request::new(()).into_parts();
        assert_eq!(judge(nothing, before).await, Verdict::NoOpinion);
    }

    #[tokio::test]
    async fn the_first_success_wins_even_after_a_rejection() {
        let [one, two] = ["one", "two"].map(|name| Caller::new(name, []));
        let (parts, ()) = http::Request::new(()).into_parts();
        let run = async |verdicts: Vec<Verdict>| {
            let all: Vec<Arc<dyn Authenticator>> =
                verdicts.into_iter().map(|verdict| Arc::new(Fixed(verdict)) as Arc<dyn Authenticator>).collect();
            first_success(&all, &parts, SystemTime::UNIX_EPOCH).await
        };
        let [accept_one, accept_two] = [&one, &two].map(|who| Verdict::Accepted(who.clone()));
        assert_eq!(run(vec![Verdict::Rejected("bad"), accept_one.clone(), accept_two]).await, Ok(one));
        assert_eq!(run(vec![Verdict::NoOpinion, Verdict::NoOpinion]).await, Err(false));
        assert_eq!(run(vec![Verdict::Rejected("bad"), Verdict::NoOpinion]).await, Err(true));
    }

    #[test]
    fn open_means_this_machine_only() {
        let check = |address: &str| Authentication::OpenOnLoopback.check(address.parse().unwrap(), false, false);
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check(address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:9090", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let error = check(address).unwrap_err().to_string();
            assert!(error.contains("--listen") && error.contains("--token-file"), "{error}");
            assert!(Authentication::Everyone.check(address.parse().unwrap(), false, false).is_ok(), "{address}");
        }
    }

    #[test]
    fn contradictory_authentication_is_refused() {
        let address: SocketAddr = "0.0.0.0:1".parse().unwrap();
        let nobody = Authentication::AnyOf(Vec::new());
        assert!(nobody.check(address, true, true).is_err());
        let certificates = Authentication::AnyOf(vec![Arc::new(ClientCertificates)]);
        let error = certificates.check(address, true, false).unwrap_err();
        assert!(error.to_string().contains("--client-ca-file"));
        assert!(certificates.check(address, true, true).is_ok());
    }
}
