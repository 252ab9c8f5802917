//! What the Secret of the shared authority holds, and what is due to it. Nothing here talks to anyone.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::ByteString;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{CertificateAuthority, ServeError, peer_certificate::AuthorityCertificate};

/// The authority that issues, as in Secrets of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// The one that issues next, trusted already.
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
/// All that are trusted.
const BUNDLE: &str = "ca.crt";

/// Certificates in the bundle.
const MOST_TRUSTED: usize = 16;
/// Bytes of one entry.
const LONGEST_ENTRY: usize = 256 << 10;

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Validity of an authority.
    pub(super) lifetime: Duration,
    /// Between trusting a new authority and issuing with it: so long may the news take to reach every client.
    pub(super) settle: Duration,
}

/// The Secret's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthorityContent {
    signing: Pair,
    next: Option<Pair>,
    trusted: Vec<Trusted>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate_pem: String,
    key_pem: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pair")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trusted {
    pem: String,
    not_after: SystemTime,
}

impl Pair {
    fn generate(now: SystemTime, terms: Terms) -> Result<Self, ServeError> {
        // A name of its own: two authorities of one name make chains ambiguous.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let authority = CertificateAuthority::generate(&format!("weir serving CA {seconds}"), now, terms.lifetime)?;
        let read = Self::read(authority.ca_pem(), &authority.key_pem());
        read.map_err(|problem| ServeError::Certificate { problem })
    }

    fn read(certificate_pem: &str, key_pem: &str) -> Result<Self, String> {
        CertificateAuthority::from_pem(certificate_pem, key_pem)?;
        let Trusted { pem, .. } = Trusted::read(certificate_pem)?.into_iter().next().ok_or("holds no PEM certificate")?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let own = AuthorityCertificate::from_der(&der).map_err(|error| error.to_string())?;
        Ok(Self { certificate_pem: pem, key_pem: key_pem.to_owned(), not_before: own.not_before, not_after: own.not_after })
    }

    fn trusted(&self) -> Trusted {
        Trusted { pem: self.certificate_pem.clone(), not_after: self.not_after }
    }

    /// Two thirds of its life.
    fn renew_at(&self) -> SystemTime {
        self.not_before + self.not_after.duration_since(self.not_before).unwrap_or_default() * 2 / 3
    }
}

impl Trusted {
    fn read(pem: &str) -> Result<Vec<Self>, String> {
        let mut trusted = Vec::new();
        for (index, der) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            if index == MOST_TRUSTED {
                return Err(format!("holds more than {MOST_TRUSTED} certificates"));
            }
            let problem = |problem: &dyn std::fmt::Display| format!("certificate {}: {problem}", index + 1);
            let der = der.map_err(|error| problem(&error))?;
            let own = AuthorityCertificate::from_der(&der).map_err(|error| problem(&error))?;
            trusted.push(Self { pem: pem_of(&der), not_after: own.not_after });
        }
        Ok(trusted)
    }
}

/// One way to write a certificate, so that equal ones compare equal.
fn pem_of(der: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let encoded = serde_json::to_value(ByteString(der.to_vec())).ok();
    let encoded = encoded.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(LINE) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

impl AuthorityContent {
    /// A first authority.
    pub(super) fn new(now: SystemTime, terms: Terms) -> Result<Self, ServeError> {
        let signing = Pair::generate(now, terms)?;
        let trusted = vec![signing.trusted()];
        Ok(Self { signing, next: None, trusted })
    }

    /// Reads a Secret's data; none when it is empty, to be filled.
    ///
    /// # Errors
    /// Which entry is wrong, and how. Never any of a key.
    pub(super) fn read(data: &BTreeMap<String, ByteString>) -> Result<Option<Self>, String> {
        if data.is_empty() {
            return Ok(None);
        }
        let text = |key: &str| -> Result<Option<&str>, String> {
            let Some(ByteString(bytes)) = data.get(key) else { return Ok(None) };
            if bytes.len() > LONGEST_ENTRY {
                return Err(format!("{key}: is longer than {LONGEST_ENTRY} bytes"));
            }
            std::str::from_utf8(bytes).map(Some).map_err(|_| format!("{key}: is no text"))
        };
        let needed = |key: &str| text(key)?.ok_or_else(|| format!("{key}: is missing"));
        let pair = |certificate: &str, key: &str| {
            Pair::read(needed(certificate)?, needed(key)?).map_err(|problem| format!("{certificate} and {key}: {problem}"))
        };
        let signing = pair(CERTIFICATE, KEY)?;
        let next = match text(NEXT_CERTIFICATE)? {
            None => None,
            Some(_) => Some(pair(NEXT_CERTIFICATE, NEXT_KEY)?),
        };
        let trusted = Trusted::read(needed(BUNDLE)?).map_err(|problem| format!("{BUNDLE}: {problem}"))?;
        let content = Self { signing, next, trusted };
        if content.issuers().all(|issuer| content.trusts(issuer)) {
            return Ok(Some(content));
        }
        Err(format!("{BUNDLE}: does not hold the certificate that issues: clients would not trust what it issues"))
    }

    pub(super) fn write(&self) -> BTreeMap<String, ByteString> {
        let mut entries =
            vec![(CERTIFICATE, self.signing.certificate_pem.clone()), (KEY, self.signing.key_pem.clone()), (BUNDLE, self.bundle())];
        if let Some(next) = &self.next {
            entries.extend([(NEXT_CERTIFICATE, next.certificate_pem.clone()), (NEXT_KEY, next.key_pem.clone())]);
        }
        entries.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
    }

    /// The authority that issues.
    pub(super) fn authority(&self) -> Result<CertificateAuthority, String> {
        CertificateAuthority::from_pem(&self.signing.certificate_pem, &self.signing.key_pem)
    }

    /// Whether both issue with the same authority.
    pub(super) fn issues_as(&self, other: &Self) -> bool {
        self.signing == other.signing
    }

    /// What clients must trust, PEM.
    pub(super) fn bundle(&self) -> String {
        self.trusted.iter().map(|trusted| trusted.pem.as_str()).collect()
    }

    /// When the authority that issues ends.
    pub(super) fn not_after(&self) -> SystemTime {
        self.signing.not_after
    }

    /// When [`Self::step`] has something to do.
    pub(super) fn due(&self, terms: Terms) -> SystemTime {
        let rotation = match &self.next {
            Some(next) => promotion(next, terms).min(self.signing.not_after),
            None => self.signing.renew_at(),
        };
        self.trusted.iter().map(|trusted| trusted.not_after).fold(rotation, SystemTime::min)
    }

    /// The next content, when one is due: a new authority is trusted first, issues after the settling time, and the
    /// old one stays trusted until it ends.
    pub(super) fn step(&self, now: SystemTime, terms: Terms) -> Result<Option<Self>, ServeError> {
        if now < self.due(terms) {
            return Ok(None);
        }
        let ended = self.signing.not_after <= now;
        let mut content = self.clone();
        match content.next.take() {
            Some(next) if ended || promotion(&next, terms) <= now => content.signing = next,
            Some(next) => content.next = Some(next),
            None if ended => content.signing = Pair::generate(now, terms)?,
            None if self.signing.renew_at() <= now => content.next = Some(Pair::generate(now, terms)?),
            None => {}
        }
        content.trusted.retain(|trusted| now < trusted.not_after);
        let missing: Vec<_> = content.issuers().filter(|issuer| !content.trusts(issuer)).map(Pair::trusted).collect();
        content.trusted.extend(missing);
        Ok(Some(content))
    }

    fn issuers(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.signing).chain(&self.next)
    }

    fn trusts(&self, issuer: &Pair) -> bool {
        self.trusted.iter().any(|trusted| trusted.pem == issuer.certificate_pem)
    }
}

/// When an authority that is trusted begins to issue.
fn promotion(next: &Pair, terms: Terms) -> SystemTime {
    next.not_before + crate::certificate_authority::BACKDATE + terms.settle
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const TERMS: Terms = Terms { lifetime: Duration::from_secs(300 * 24 * 3600), settle: Duration::from_secs(600) };

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn what_is_written_is_read() {
        let content = AuthorityContent::new(start(), TERMS).unwrap();
        assert_eq!(AuthorityContent::read(&content.write()).unwrap().unwrap(), content);
        let rotating = content.step(start() + DAY * 250, TERMS).unwrap().unwrap();
        assert_eq!(AuthorityContent::read(&rotating.write()).unwrap().unwrap(), rotating);
        assert_eq!(AuthorityContent::read(&BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn a_rotation_trusts_then_issues_then_forgets() {
        let first = AuthorityContent::new(start(), TERMS).unwrap();
        assert!(first.step(start() + DAY * 199, TERMS).unwrap().is_none());
        let began = start() + DAY * 201;
        let trusting = first.step(began, TERMS).unwrap().unwrap();
        assert!(trusting.issues_as(&first));
        assert_eq!(trusting.trusted.len(), 2);
        assert!(trusting.step(began + TERMS.settle - Duration::from_secs(1), TERMS).unwrap().is_none());

        let issuing = trusting.step(began + TERMS.settle, TERMS).unwrap().unwrap();
        assert!(!issuing.issues_as(&first) && issuing.next.is_none());
        assert_eq!(issuing.bundle(), trusting.bundle(), "the old one is still trusted");
        assert_eq!(issuing.due(TERMS), start() + TERMS.lifetime, "until it ends");
        let last = issuing.step(start() + TERMS.lifetime, TERMS).unwrap().unwrap();
        assert!(last.issues_as(&issuing));
        assert_eq!(last.trusted.len(), 1);
    }

    #[test]
    fn an_authority_that_ended_is_replaced_at_once() {
        let first = AuthorityContent::new(start(), TERMS).unwrap();
        let replaced = first.step(start() + TERMS.lifetime + DAY, TERMS).unwrap().unwrap();
        assert!(!replaced.issues_as(&first));
        assert_eq!(replaced.trusted.len(), 1);
        assert!(AuthorityContent::read(&replaced.write()).unwrap().is_some());
    }

    #[test]
    fn foreign_content_is_refused_by_its_entry() {
        let good = AuthorityContent::new(start(), TERMS).unwrap().write();
        let other = AuthorityContent::new(start(), TERMS).unwrap().write();
        let now = SystemTime::now();
        let leaf = CertificateAuthority::new(now).unwrap().issue_server(&[], now).unwrap();
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        for (key, value, problem) in [
            (CERTIFICATE, None, "tls.crt: is missing"),
            (CERTIFICATE, Some(bytes("nonsense")), "tls.crt and tls.key: the certificate is not PEM"),
            (CERTIFICATE, Some(bytes(&leaf.certificate_pem)), "no certificate of an authority"),
            (KEY, Some(other[KEY].clone()), "does not belong"),
            (KEY, Some(bytes("nonsense")), "the private key cannot be read"),
            (BUNDLE, Some(other[BUNDLE].clone()), "ca.crt: does not hold"),
            (BUNDLE, Some(ByteString(vec![0xff])), "ca.crt: is no text"),
            (NEXT_CERTIFICATE, Some(other[CERTIFICATE].clone()), "next.key: is missing"),
        ] {
            let mut data = good.clone();
            match value {
                Some(value) => drop(data.insert(key.into(), value)),
                None => drop(data.remove(key)),
            }
            let error = AuthorityContent::read(&data).unwrap_err();
            assert!(error.contains(problem), "{key}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_entry_is_read_or_refused(key in "(tls|next|ca)\\.(crt|key)", value in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(AuthorityContent::read(&[(key, ByteString(value))].into()).is_err());
        }
    }
}
