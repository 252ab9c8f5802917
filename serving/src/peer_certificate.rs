//! Who a verified client certificate names.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Upper bound on the organisations taken from one certificate: each becomes a group.
const MAX_ORGANIZATIONS: usize = 64;

/// The certificate the connection's other side proved to hold, verified against the client CA file when the
/// connection was made. A request extension on such connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's (last) common name; empty when it has none.
    pub common_name: Arc<str>,
    /// The subject's organisations, in the certificate's order.
    pub organizations: Arc<[String]>,
    /// The first moment the certificate is no longer valid. The connection can live longer.
    pub not_after: SystemTime,
}

/// A certificate whose parts cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnreadableCertificate(String);

impl PeerCertificate {
    /// Reads the subject of one DER certificate. It verifies nothing: that happened in the handshake.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let certificate = parse(der)?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute
                .as_str()
                .map(String::from)
                .map_err(|error| UnreadableCertificate(format!("its subject is not text in a known form: {error}")))
        };
        let common_name = match subject.iter_common_name().last() {
            Some(attribute) => text(attribute)?,
            None => String::new(),
        };
        let organizations = subject.iter_organization().map(text).collect::<Result<Vec<_>, _>>()?;
        if organizations.len() > MAX_ORGANIZATIONS {
            return Err(UnreadableCertificate(format!("its subject has more than {MAX_ORGANIZATIONS} organisations")));
        }
        Ok(Self { common_name: common_name.into(), organizations: organizations.into(), not_after: end_of_validity(&certificate) })
    }
}

/// What a server wants to know of its own certificate.
pub(crate) struct OwnCertificate {
    pub(crate) not_after: SystemTime,
    /// Clients ignore the common name: without a subject alternative name nobody accepts it.
    pub(crate) has_names: bool,
}

impl OwnCertificate {
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let certificate = parse(der)?;
        Ok(Self {
            not_after: end_of_validity(&certificate),
            has_names: matches!(certificate.subject_alternative_name(), Ok(Some(names)) if !names.value.general_names.is_empty()),
        })
    }
}

/// What matters of an authority's certificate.
pub(crate) struct AuthorityCertificate {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// The subject's key, as in the certificate.
    pub(crate) public_key: Vec<u8>,
}

impl AuthorityCertificate {
    /// Refuses a certificate that is no authority's.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let certificate = parse(der)?;
        if !certificate.is_ca() {
            return Err(UnreadableCertificate("it is no certificate of an authority".into()));
        }
        Ok(Self {
            not_before: time_of(certificate.validity().not_before.timestamp()),
            not_after: end_of_validity(&certificate),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }
}

/// When the last certificate of a PEM bundle ends; none when it holds no certificate.
pub(crate) fn end_of_bundle(pem: &str) -> Option<SystemTime> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    certificates.filter_map(|der| parse(&der).ok().map(|certificate| end_of_validity(&certificate))).max()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, UnreadableCertificate> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(UnreadableCertificate(format!("it is not an X.509 certificate: {error}"))),
    }
}

fn end_of_validity(certificate: &X509Certificate<'_>) -> SystemTime {
    time_of(certificate.validity().not_after.timestamp())
}

fn time_of(seconds: i64) -> SystemTime {
    // Before 1970 is as expired as 1970.
    let seconds = u64::try_from(seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CertificateAuthority;

    // openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500
    //   -subj "/O=system:masters/CN=old/O=front proxies/CN=aggregator"
    const TWO_ORGANIZATIONS: &[u8] = include_bytes!("testdata/two-organizations.pem");

    fn client_certificate() -> Vec<u8> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let issued = CertificateAuthority::new(now).unwrap().issue_client("reader", Some("boards"), now, 2).unwrap();
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn subject_and_validity_are_read() {
        let peer = PeerCertificate::from_der(&client_certificate()).unwrap();
        assert_eq!(&*peer.common_name, "reader");
        assert_eq!(&*peer.organizations, ["boards".to_owned()]);
        assert_eq!(peer.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 2 * 24 * 3600));
    }

    #[test]
    fn the_last_common_name_and_all_organizations_count() {
        let der = CertificateDer::from_pem_slice(TWO_ORGANIZATIONS).unwrap();
        let peer = PeerCertificate::from_der(&der).unwrap();
        assert_eq!(&*peer.common_name, "aggregator");
        assert_eq!(&*peer.organizations, ["system:masters".to_owned(), "front proxies".to_owned()]);
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_read_or_refused(
            (position, value) in (0_usize..4096, any::<u8>()),
            length in 0_usize..4096,
        ) {
            static DER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut der = DER.get_or_init(client_certificate).clone();
            let position = position % der.len();
            der[position] = value;
            der.truncate(length.max(position + 1));
            if let Ok(peer) = PeerCertificate::from_der(&der) {
                prop_assert!(peer.organizations.len() <= MAX_ORGANIZATIONS);
            }
        }
    }
}
