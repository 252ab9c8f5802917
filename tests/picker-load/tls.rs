//! A certificate for the servers, and the two ends of TLS.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weir_serving::CertificateAuthority;

type Failure = Box<dyn Error + Send + Sync>;

/// Writes `tls.crt` and `tls.key`, and the authority as `ca.crt`.
pub(crate) fn issue(directory: &Path) -> Result<(), Failure> {
    let authority = CertificateAuthority::new(SystemTime::now())?;
    let issued = authority.issue_server(&["127.0.0.1".into()], SystemTime::now())?;
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("ca.crt"), authority.ca_pem())?;
    std::fs::write(directory.join("tls.crt"), &issued.certificate_pem)?;
    Ok(std::fs::write(directory.join("tls.key"), &issued.key_pem)?)
}

pub(crate) fn acceptor(directory: &Path) -> Result<TlsAcceptor, Failure> {
    let certificates = CertificateDer::pem_file_iter(directory.join("tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key"))?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}

pub(crate) fn connector(directory: &Path) -> Result<TlsConnector, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.crt"))?)?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}
