//! What a client's certificate is worth: judged in the handshake for a client CA file, with every request for a cluster.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use crate::{PeerCertificate, kubernetes::PeerChain};

/// What a connection is accepted with, and its client judged by.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) file_verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub(crate) cluster: bool,
}

/// What a client's certificate says.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) certificate: Option<PeerCertificate>,
    pub(crate) chain: Option<PeerChain>,
}

impl Current {
    /// Of a handshake that succeeded.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn peer(&self, chain: Option<&[CertificateDer<'static>]>, now: SystemTime) -> Result<Peer, String> {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return Ok(Peer::default());
        };
        let read = || PeerCertificate::from_der(leaf).map(Some).map_err(|error| error.to_string());
        if !self.cluster {
            return Ok(Peer { certificate: read()?, chain: None });
        }
        // The handshake only proved that the client holds the key.
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let is_of_file =
            self.file_verifier.as_ref().is_some_and(|verifier| verifier.verify_client_cert(leaf, intermediates, now).is_ok());
        let certificate = if is_of_file { read()? } else { None };
        Ok(Peer { certificate, chain: chain.map(PeerChain::new) })
    }
}

/// Tells of changes that [`crate::tls::LiveTls::reload`] picks up and that need not wait for the next look at files.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) authority: Option<watch::Receiver<u64>>,
    pub(crate) trust: Option<watch::Receiver<u64>>,
}

impl Changes {
    /// Waits for the next one; for ever where there are none to come.
    pub(crate) async fn next(&mut self) {
        async fn one(changes: &mut Option<watch::Receiver<u64>>) {
            if let Some(receiver) = changes {
                match receiver.changed().await {
                    Ok(()) => return,
                    Err(_nobody_sends) => *changes = None,
                }
            }
            std::future::pending().await
        }
        tokio::select! {
            () = one(&mut self.authority) => {}
            () = one(&mut self.trust) => {}
        }
    }
}

/// Asks for a certificate and lets the client prove that it holds the key. What the certificate is worth is judged with
/// every request, when it is known what is trusted then.
#[derive(Debug)]
pub(crate) struct KeyHolder {
    pub(crate) hints: Vec<DistinguishedName>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for KeyHolder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
