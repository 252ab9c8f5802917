//! A small certificate authority in memory, for servers that are given no certificate files.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

use crate::{ServeError, peer_certificate::AuthorityCertificate};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of client and server may differ by this much.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// As the Go API servers' self-signed certificates.
pub(crate) const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Names every self-made server certificate is valid for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const MAX_NAMES: usize = 100;

/// A certificate authority. A new one's key never leaves this process: everything it issued loses its trust with the
/// process, so clients get [`CertificateAuthority::ca_pem`] anew from each. One that outlives processes is
/// [`crate::SharedAuthority`]'s.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    not_after: SystemTime,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

/// A certificate with its key, both PEM.
pub struct Issued {
    /// The leaf certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
    /// The first moment it is no longer valid.
    pub not_after: SystemTime,
}

impl CertificateAuthority {
    /// A new authority, valid for ten years from `now`.
    ///
    /// # Errors
    /// [`ServeError::Certificate`] when the cryptography library fails.
    pub fn new(now: SystemTime) -> Result<Self, ServeError> {
        Self::generate("weir self-made CA", now, AUTHORITY_LIFETIME)
    }

    /// A new authority of this common name, valid for `lifetime` from `now`.
    pub(crate) fn generate(name: &str, now: SystemTime, lifetime: Duration) -> Result<Self, ServeError> {
        let key = KeyPair::generate().map_err(|error| failed("key", &error))?;
        let not_after = now + lifetime;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACKDATE).into();
        params.not_after = not_after.into();
        let ca_pem = params.self_signed(&key).map_err(|error| failed("authority", &error))?.pem();
        Ok(Self { issuer: Issuer::new(params, key), ca_pem, not_after })
    }

    /// The authority of this certificate and key, both PEM.
    ///
    /// # Errors
    /// What is wrong with them, in words; never any of the key.
    pub(crate) fn from_pem(ca_pem: &str, key_pem: &str) -> Result<Self, String> {
        let der =
            CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| format!("the certificate is not PEM: {error}"))?;
        let own = AuthorityCertificate::from_der(&der).map_err(|error| format!("the certificate cannot be used: {error}"))?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| format!("the private key cannot be read: {error}"))?;
        if key.public_key_raw() != own.public_key {
            return Err("the private key does not belong to the certificate".into());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| format!("the certificate cannot be used: {error}"))?;
        Ok(Self { issuer, ca_pem: ca_pem.to_owned(), not_after: own.not_after })
    }

    /// Its private key, PKCS#8 in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The authority's own certificate, PEM: what a client must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A server certificate for `localhost`, `127.0.0.1`, `::1` and `names` (DNS names, wildcards in the first
    /// label, or IP addresses), valid for a year from `now`.
    ///
    /// # Errors
    /// [`ServeError::Certificate`] naming the name that is neither, or when there are more than 100.
    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<Issued, ServeError> {
        check_names(names)?;
        let mut all: Vec<String> = LOCAL_NAMES.map(String::from).into();
        for name in names {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        let mut params = CertificateParams::new(all).map_err(|error| failed("subject names", &error))?;
        params.distinguished_name = subject("weir", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, now, SERVER_LIFETIME)
    }

    /// A client certificate, valid for `days` from `now`: Kubernetes reads the common name as the user, the
    /// organisation as its group (`rcgen` writes one; [`crate::PeerCertificate`] reads any number).
    ///
    /// # Errors
    /// [`ServeError::Certificate`] when the cryptography library fails.
    pub fn issue_client(
        &self,
        common_name: &str,
        organization: Option<&str>,
        now: SystemTime,
        days: u32,
    ) -> Result<Issued, ServeError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, now, DAY * days)
    }

    fn issue(&self, mut params: CertificateParams, now: SystemTime, lifetime: Duration) -> Result<Issued, ServeError> {
        let key = KeyPair::generate().map_err(|error| failed("key", &error))?;
        // Nothing is trusted for longer than who issued it.
        let not_after = (now + lifetime).min(self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATE).into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| failed("signature", &error))?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), not_after })
    }
}

/// Refuses what no client could connect to.
fn check_names(names: &[String]) -> Result<(), ServeError> {
    if names.len() > MAX_NAMES {
        return Err(ServeError::Certificate { problem: format!("{} names given, at most {MAX_NAMES} fit", names.len()) });
    }
    for name in names {
        let host = name.strip_prefix("*.").unwrap_or(name);
        if ServerName::try_from(host).is_err() {
            return Err(ServeError::Certificate { problem: format!("{name:?} is neither a DNS name nor an IP address") });
        }
    }
    Ok(())
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    subject
}

fn failed(step: &str, error: &rcgen::Error) -> ServeError {
    ServeError::Certificate { problem: format!("{step}: {error}") }
}
