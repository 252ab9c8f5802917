//! TLS: where the certificate comes from, and the configuration every new connection is accepted with.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::watch;

use crate::{
    CertificateAuthority, ClusterTrust, Reload, ServeError, SharedAuthority,
    client_verification::{Changes, Current, KeyHolder},
    files::{Change, FileRole, WatchedFiles},
    peer_certificate::OwnCertificate,
};

/// A chain, a key or a bundle of authorities is a few KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Makes aws-lc-rs the process-wide provider of cryptography, for libraries that ask for one (clients, tests).
/// Calling it again, or after another one was installed, changes nothing.
pub fn install_crypto_provider() {
    // The error says that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// Where a server's certificate comes from, and whose client certificates it accepts.
///
/// TLS 1.2 and 1.3 with forward-secret authenticated suites only; HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Clone, Debug)]
pub struct Tls {
    source: Source,
    client_ca: Option<PathBuf>,
    cluster: Option<ClusterTrust>,
}

#[derive(Clone, Debug)]
enum Source {
    SelfMade { authority: Arc<CertificateAuthority>, names: Vec<String> },
    Shared { authority: Arc<SharedAuthority>, names: Vec<String> },
    Files { certificate: PathBuf, key: PathBuf },
}

impl Tls {
    /// A certificate made in memory for `localhost`, the loopback addresses and `names`, renewed well before it
    /// ends. Several servers can share the authority; clients trust [`CertificateAuthority::ca_pem`].
    pub fn self_made(authority: Arc<CertificateAuthority>, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::from(Source::SelfMade { authority, names: names.into_iter().map(Into::into).collect() })
    }

    /// A PEM chain (leaf first) and the PEM key of its leaf. Read when the server binds, and again whenever their
    /// content changes; a bad new pair leaves the old one in use.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::from(Source::Files { certificate: certificate.into(), key: key.into() })
    }

    /// A certificate for `names` (see [`crate::service_names`]) from the authority that all replicas share, made anew
    /// whenever another authority issues. Its key never leaves this process.
    pub fn shared(authority: Arc<SharedAuthority>, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::from(Source::Shared { authority, names: names.into_iter().map(Into::into).collect() })
    }

    fn from(source: Source) -> Self {
        Self { source, client_ca: None, cluster: None }
    }

    /// Ask clients for a certificate that the cluster trusts. A client may come without; what a certificate is worth is
    /// judged with every request ([`crate::FrontProxy`], [`crate::ClusterCertificates`]), so none is turned away in the
    /// handshake, not even for the file of [`Tls::client_ca`].
    #[must_use]
    pub fn cluster(mut self, trust: ClusterTrust) -> Self {
        self.cluster = Some(trust);
        self
    }

    /// Ask clients for a certificate issued by one of the authorities in this PEM file. A client may come without;
    /// one with a certificate that does not verify is turned away in the handshake.
    #[must_use]
    pub fn client_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(path.into());
        self
    }

    pub(crate) fn asks_for_client_certificates(&self) -> bool {
        self.client_ca.is_some() || self.cluster.is_some()
    }

    /// The self-made authority's certificate.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        match &self.source {
            Source::SelfMade { authority, .. } => Some(authority.ca_pem()),
            Source::Shared { .. } | Source::Files { .. } => None,
        }
    }
}

/// The configuration in use; connections made before a change keep theirs. The whole [`ServerConfig`] is swapped,
/// so that sessions cached under an old client CA cannot be resumed under a new one.
#[derive(Debug)]
pub(crate) struct LiveTls {
    current: ArcSwap<Current>,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    provider: Arc<CryptoProvider>,
    certificate: OwnPair,
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
    client_ca: Option<WatchedFiles>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    cluster: Option<(ClusterTrust, watch::Receiver<u64>)>,
}

#[derive(Debug)]
enum OwnPair {
    SelfMade { authority: Arc<CertificateAuthority>, names: Vec<String>, renew_at: SystemTime },
    Shared { authority: Arc<SharedAuthority>, names: Vec<String>, renew_at: SystemTime, generation: watch::Receiver<u64> },
    Files(WatchedFiles),
}

impl LiveTls {
    /// Makes or reads everything once.
    pub(crate) fn load(tls: &Tls, now: SystemTime) -> Result<Self, ServeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (certificate, loaded) = match &tls.source {
            Source::SelfMade { authority, names } => {
                let loaded = self_made_pair(authority, names, now, &provider)?;
                let pair = OwnPair::SelfMade {
                    authority: Arc::clone(authority),
                    names: names.clone(),
                    renew_at: renewal_time(now, loaded.not_after),
                };
                (pair, loaded)
            }
            Source::Shared { authority, names } => {
                let mut generation = authority.generation();
                generation.mark_unchanged();
                let loaded = self_made_pair(&authority.issuing(), names, now, &provider)?;
                let pair = OwnPair::Shared {
                    authority: Arc::clone(authority),
                    names: names.clone(),
                    renew_at: renewal_time(now, loaded.not_after),
                    generation,
                };
                (pair, loaded)
            }
            Source::Files { certificate, key } => {
                let roles = vec![FileRole::new("certificate", certificate), FileRole::new("private key", key)];
                let files = WatchedFiles::open(roles, MAX_FILE_BYTES)?;
                let loaded = given_pair(files.roles(), files.content(), now, &provider)?;
                (OwnPair::Files(files), loaded)
            }
        };
        let (client_ca, verifier) = match &tls.client_ca {
            None => (None, None),
            Some(path) => {
                let roles = vec![FileRole::new("client CA", path)];
                let files = WatchedFiles::open(roles, MAX_FILE_BYTES)?;
                let verifier = client_verifier(files.roles(), files.content(), &provider)?;
                (Some(files), Some(verifier))
            }
        };
        let cluster = tls.cluster.clone().map(|trust| {
            let generation = trust.generation();
            (trust, generation)
        });
        let parts = Parts { provider, certificate, key: loaded.key, not_after: loaded.not_after, client_ca, verifier, cluster };
        Ok(Self { current: ArcSwap::new(parts.current()?), parts: Mutex::new(parts) })
    }

    /// What the next connection is accepted with.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Tells of changes that [`LiveTls::reload`] picks up and that need not wait for the next look at files.
    pub(crate) fn changes(&self) -> Changes {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let authority = match &parts.certificate {
            OwnPair::Shared { generation, .. } => Some(generation.clone()),
            OwnPair::SelfMade { .. } | OwnPair::Files(_) => None,
        };
        Changes { authority, trust: parts.cluster.as_ref().map(|(_, generation)| generation.clone()) }
    }

    /// The first moment the certificate in use is no longer valid.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Looks at the files again, and at the age of a self-made certificate. Reads files: not for a task that
    /// must not block.
    pub(crate) fn reload(&self, now: SystemTime) -> Vec<Reload> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes: Vec<Reload> = [parts.reload_certificate(now), parts.reload_client_ca()].into_iter().flatten().collect();
        let trust_changed = match &mut parts.cluster {
            Some((_, generation)) if generation.has_changed().unwrap_or(false) => {
                generation.mark_unchanged();
                true
            }
            _ => false,
        };
        if trust_changed || outcomes.iter().any(|outcome| matches!(outcome, Reload::Loaded { .. })) {
            match parts.current() {
                Ok(config) => self.current.store(config),
                Err(error) => {
                    return vec![Reload::Refused { subject: "certificate", error }];
                }
            }
        }
        outcomes
    }
}

impl Parts {
    fn current(&self) -> Result<Arc<Current>, ServeError> {
        let file_verifier = self.verifier.clone();
        Ok(Arc::new(Current { config: self.server_config()?, file_verifier, cluster: self.cluster.is_some() }))
    }

    fn server_config(&self) -> Result<Arc<ServerConfig>, ServeError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ServeError::Certificate { problem: format!("TLS configuration: {error}") })?;
        let verifier = match &self.cluster {
            None => self.verifier.clone(),
            Some((trust, _)) => {
                let mut hints = trust.hints();
                hints.extend(self.verifier.iter().flat_map(|verifier| verifier.root_hint_subjects().iter().cloned()));
                Some(Arc::new(KeyHolder { hints, provider: Arc::clone(&self.provider) }) as Arc<dyn ClientCertVerifier>)
            }
        };
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(Arc::clone(&self.key));
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn reload_certificate(&mut self, now: SystemTime) -> Option<Reload> {
        const SUBJECT: &str = "certificate";
        let loaded = match &mut self.certificate {
            OwnPair::SelfMade { authority, names, renew_at } => {
                if now < *renew_at {
                    return None;
                }
                let made = self_made_pair(authority, names, now, &self.provider);
                *renew_at = match &made {
                    Ok(loaded) => renewal_time(now, loaded.not_after),
                    // Two thirds of a year are left to try again.
                    Err(_) => now + Duration::from_secs(3600),
                };
                made
            }
            OwnPair::Shared { authority, names, renew_at, generation } => {
                if now < *renew_at && !generation.has_changed().unwrap_or(false) {
                    return None;
                }
                generation.mark_unchanged();
                let made = self_made_pair(&authority.issuing(), names, now, &self.provider);
                *renew_at = match &made {
                    Ok(loaded) => renewal_time(now, loaded.not_after),
                    Err(_) => now + Duration::from_secs(60),
                };
                made
            }
            OwnPair::Files(files) => match files.poll() {
                Change::None => return None,
                Change::Unreadable(error) => Err(error),
                Change::Content(content) => {
                    let loaded = given_pair(files.roles(), &content, now, &self.provider);
                    if loaded.is_ok() {
                        files.accept(content);
                    }
                    loaded
                }
            },
        };
        Some(match loaded {
            Ok(loaded) => {
                self.key = loaded.key;
                self.not_after = loaded.not_after;
                Reload::Loaded { subject: SUBJECT }
            }
            Err(error) => Reload::Refused { subject: SUBJECT, error },
        })
    }

    fn reload_client_ca(&mut self) -> Option<Reload> {
        const SUBJECT: &str = "client_ca";
        let files = self.client_ca.as_mut()?;
        let verifier = match files.poll() {
            Change::None => return None,
            Change::Unreadable(error) => Err(error),
            Change::Content(content) => {
                let verifier = client_verifier(files.roles(), &content, &self.provider);
                if verifier.is_ok() {
                    files.accept(content);
                }
                verifier
            }
        };
        Some(match verifier {
            Ok(verifier) => {
                self.verifier = Some(verifier);
                Reload::Loaded { subject: SUBJECT }
            }
            Err(error) => Reload::Refused { subject: SUBJECT, error },
        })
    }
}

struct LoadedPair {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
}

/// After two thirds of the certificate's life.
fn renewal_time(made: SystemTime, not_after: SystemTime) -> SystemTime {
    made + not_after.duration_since(made).unwrap_or_default() * 2 / 3
}

fn self_made_pair(
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<LoadedPair, ServeError> {
    let issued = authority.issue_server(names, now)?;
    let failed = |problem: String| ServeError::Certificate { problem };
    let chain = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(|error| failed(error.to_string()))?;
    let key = CertifiedKey::from_der(vec![chain], key, provider).map_err(|error| failed(error.to_string()))?;
    Ok(LoadedPair { key: Arc::new(key), not_after: issued.not_after })
}

/// The pair from files: roles and contents are certificate, then key.
fn given_pair(
    roles: &[FileRole],
    contents: &[Vec<u8>],
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<LoadedPair, ServeError> {
    let ([certificate_role, key_role], [certificate_pem, key_pem]) = (roles, contents) else {
        return Err(ServeError::Certificate { problem: "a certificate and its key are two files".into() });
    };
    let chain = certificates(certificate_role, certificate_pem)?;
    let own = match chain.first() {
        Some(leaf) => OwnCertificate::from_der(leaf).map_err(|error| certificate_role.error(format!("certificate 1: {error}")))?,
        None => return Err(certificate_role.error("holds no PEM certificate")),
    };
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| {
        key_role.error(match error {
            rustls_pki_types::pem::Error::NoItemsFound => "holds no PEM private key".to_owned(),
            error => format!("is not PEM: {error}"),
        })
    })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        key_role.error(match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key does not belong to the certificate in {}", certificate_role.path.display())
            }
            error => error.to_string(),
        })
    })?;
    // Clients decide about these, some on purpose (insecureSkipTLSVerify): not a reason to stay down.
    if own.not_after <= now {
        tracing::warn!(file = %certificate_role.path.display(), "serving certificate has expired");
    }
    if !own.has_names {
        tracing::warn!(file = %certificate_role.path.display(), "serving certificate has no subject alternative name, clients will refuse it");
    }
    Ok(LoadedPair { key: Arc::new(key), not_after: own.not_after })
}

fn client_verifier(
    roles: &[FileRole],
    contents: &[Vec<u8>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ServeError> {
    let ([role], [pem]) = (roles, contents) else {
        return Err(ServeError::Certificate { problem: "a client CA is one file".into() });
    };
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(role, pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| role.error(format!("certificate {}: {error}", index + 1)))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| role.error(error.to_string()))
}

fn certificates(role: &FileRole, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| role.error(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(role.error("holds no PEM certificate"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_authority::SERVER_LIFETIME;

    fn load_error(tls: &Tls) -> String {
        LiveTls::load(tls, SystemTime::now()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, content: &str| std::fs::write(path(name), content).unwrap();
        let now = SystemTime::now();
        let authority = CertificateAuthority::new(now).unwrap();
        let [one, other] = [(); 2].map(|()| authority.issue_server(&[], now).unwrap());
        write("one.crt", &one.certificate_pem);
        write("one.key", &one.key_pem);
        write("other.key", &other.key_pem);
        write("empty", "");
        write("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
        let files = |certificate: &str, key: &str| load_error(&Tls::files(path(certificate), path(key)));

        assert!(files("none", "one.key").contains("cannot use certificate file"));
        assert!(files("empty", "one.key").ends_with("empty: holds no PEM certificate"));
        assert!(files("cut", "one.key").contains("cut: certificate 1: it is not an X.509"));
        assert!(files("one.crt", "empty").ends_with("empty: holds no PEM private key"));
        let mixed = files("one.crt", "other.key");
        assert!(mixed.contains("other.key: the key does not belong to the certificate in"), "{mixed}");

        let with_ca = |ca: &str| load_error(&Tls::files(path("one.crt"), path("one.key")).client_ca(path(ca)));
        assert!(with_ca("one.key").ends_with("one.key: holds no PEM certificate"));
        assert!(with_ca("cut").contains("cannot use client CA file"));
    }

    #[test]
    fn a_self_made_certificate_is_renewed_after_two_thirds_of_its_life() {
        let now = SystemTime::now();
        let authority = Arc::new(CertificateAuthority::new(now).unwrap());
        let tls = LiveTls::load(&Tls::self_made(authority, [] as [&str; 0]), now).unwrap();
        let first = tls.not_after();
        assert!(tls.reload(now + SERVER_LIFETIME / 2).is_empty());
        assert_eq!(tls.not_after(), first);
        let later = now + SERVER_LIFETIME * 3 / 4;
        assert!(matches!(tls.reload(later)[..], [Reload::Loaded { subject: "certificate" }]), "renewed");
        assert_eq!(tls.not_after(), later + SERVER_LIFETIME);
    }

    #[test]
    fn names_no_client_could_use_are_refused() {
        let now = SystemTime::now();
        let authority = Arc::new(CertificateAuthority::new(now).unwrap());
        let problem = |name: &str| load_error(&Tls::self_made(Arc::clone(&authority), [name]));
        assert!(problem("not a name").contains("\"not a name\" is neither a DNS name nor an IP address"));
        assert!(problem("").contains("\"\""));
        let good = ["weir.default.svc", "*.weir.default.svc", "10.0.0.1"];
        assert!(LiveTls::load(&Tls::self_made(authority, good), now).is_ok());
    }

    #[test]
    fn installing_the_provider_twice_is_fine() {
        install_crypto_provider();
        install_crypto_provider();
        assert!(CryptoProvider::get_default().is_some());
    }
}
