//! ConfigMap `kube-system/extension-apiserver-authentication`: what the API server tells its extensions about client
//! certificates.

use std::collections::BTreeMap;

use http::HeaderName;
use rustls::{RootCertStore, pki_types::CertificateDer};
use rustls_pki_types::pem::PemObject;

/// Where the configuration is.
pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const NAME: &str = "extension-apiserver-authentication";

const CLIENT_CA: &str = "client-ca-file";
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
const USER_HEADERS: &str = "requestheader-username-headers";
const GROUP_HEADERS: &str = "requestheader-group-headers";
const EXTRA_PREFIXES: &str = "requestheader-extra-headers-prefix";
const UID_HEADERS: &str = "requestheader-uid-headers";

/// Entries of a list, and certificates of a bundle.
const MOST_ENTRIES: usize = 256;

/// What one version of the ConfigMap says.
#[derive(Debug)]
pub(crate) struct AuthenticationConfiguration {
    /// Authorities of the users' own certificates.
    pub(crate) client_ca: Option<RootCertStore>,
    pub(crate) front_proxy: Option<FrontProxyConfiguration>,
}

/// How the API server passes its users on.
#[derive(Debug)]
pub(crate) struct FrontProxyConfiguration {
    /// Authorities of the API server's own certificate.
    pub(crate) ca: RootCertStore,
    /// Common names that certificate may have; none means any.
    pub(crate) allowed_names: Vec<String>,
    pub(crate) headers: ProxyHeaders,
}

/// The headers that name the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeaders {
    pub(crate) user: Vec<HeaderName>,
    pub(crate) group: Vec<HeaderName>,
    /// Lower case, as header names are compared.
    pub(crate) extra_prefixes: Vec<String>,
    pub(crate) uid: Vec<HeaderName>,
}

/// Why a ConfigMap cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("ConfigMap {NAMESPACE}/{NAME}: {0}")]
pub(crate) struct BadConfiguration(String);

impl AuthenticationConfiguration {
    /// Reads the ConfigMap's data.
    pub(crate) fn read(data: &BTreeMap<String, String>) -> Result<Self, BadConfiguration> {
        let client_ca = bundle(data, CLIENT_CA)?;
        let front_proxy = match bundle(data, FRONT_PROXY_CA)? {
            None => None,
            Some(ca) => {
                Some(FrontProxyConfiguration { ca, allowed_names: list(data, ALLOWED_NAMES)?, headers: ProxyHeaders::read(data)? })
            }
        };
        if client_ca.is_none() && front_proxy.is_none() {
            return Err(BadConfiguration(format!(
                "has neither {CLIENT_CA} nor {FRONT_PROXY_CA}: start the Kubernetes API server with --requestheader-client-ca-file, or nobody can be known by a certificate"
            )));
        }
        Ok(Self { client_ca, front_proxy })
    }
}

impl ProxyHeaders {
    fn read(data: &BTreeMap<String, String>) -> Result<Self, BadConfiguration> {
        let user = headers(data, USER_HEADERS)?;
        if user.is_empty() {
            return Err(BadConfiguration(format!("{USER_HEADERS} names no header, but {FRONT_PROXY_CA} is given")));
        }
        let extra_prefixes = headers(data, EXTRA_PREFIXES)?.into_iter().map(|prefix| prefix.as_str().to_owned()).collect();
        Ok(Self { user, group: headers(data, GROUP_HEADERS)?, extra_prefixes, uid: headers(data, UID_HEADERS)? })
    }
}

fn bundle(data: &BTreeMap<String, String>, key: &str) -> Result<Option<RootCertStore>, BadConfiguration> {
    let Some(pem) = data.get(key).filter(|pem| !pem.trim().is_empty()) else {
        return Ok(None);
    };
    let bad = |problem: String| BadConfiguration(format!("{key}: {problem}"));
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        if index == MOST_ENTRIES {
            return Err(bad(format!("more than {MOST_ENTRIES} certificates")));
        }
        let certificate = certificate.map_err(|error| bad(format!("is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| bad(format!("certificate {}: {error}", index + 1)))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no PEM certificate".into()));
    }
    Ok(Some(roots))
}

fn list(data: &BTreeMap<String, String>, key: &str) -> Result<Vec<String>, BadConfiguration> {
    let Some(text) = data.get(key).filter(|text| !text.trim().is_empty()) else {
        return Ok(Vec::new());
    };
    let bad = |problem: String| BadConfiguration(format!("{key}: {problem}"));
    let entries: Vec<String> =
        serde_json::from_str(text).map_err(|error| bad(format!("is not a JSON list of strings: {error}")))?;
    if entries.len() > MOST_ENTRIES {
        return Err(bad(format!("more than {MOST_ENTRIES} entries")));
    }
    // An empty entry must not open what it was to restrict.
    if entries.iter().any(|entry| entry.trim().is_empty()) {
        return Err(bad("has an empty entry".into()));
    }
    Ok(entries)
}

fn headers(data: &BTreeMap<String, String>, key: &str) -> Result<Vec<HeaderName>, BadConfiguration> {
    let parse = |name: String| {
        HeaderName::try_from(name.trim()).map_err(|_| BadConfiguration(format!("{key}: {name:?} is no header name")))
    };
    list(data, key)?.into_iter().map(parse).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::CertificateAuthority;

    /// As a cluster made with kubeadm publishes it.
    pub(crate) fn published(client_ca: &str, front_proxy_ca: &str) -> BTreeMap<String, String> {
        [
            (CLIENT_CA, client_ca),
            (FRONT_PROXY_CA, front_proxy_ca),
            (ALLOWED_NAMES, r#"["front-proxy-client"]"#),
            (USER_HEADERS, r#"["X-Remote-User"]"#),
            (GROUP_HEADERS, r#"["X-Remote-Group"]"#),
            (EXTRA_PREFIXES, r#"["X-Remote-Extra-"]"#),
            (UID_HEADERS, r#"["X-Remote-Uid"]"#),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn ca() -> String {
        CertificateAuthority::new(SystemTime::now()).unwrap().ca_pem().to_owned()
    }

    #[test]
    fn a_published_configuration_is_read() {
        let (one, two) = (ca(), ca());
        let read = AuthenticationConfiguration::read(&published(&(one.clone() + &two), &two)).unwrap();
        assert_eq!(read.client_ca.unwrap().len(), 2);
        let front_proxy = read.front_proxy.unwrap();
        assert_eq!(front_proxy.ca.len(), 1);
        assert_eq!(front_proxy.allowed_names, ["front-proxy-client"]);
        assert_eq!(front_proxy.headers.user, ["x-remote-user"]);
        assert_eq!(front_proxy.headers.extra_prefixes, ["x-remote-extra-"]);
        assert_eq!(front_proxy.headers.uid, ["x-remote-uid"]);
    }

    #[test]
    fn parts_may_be_missing_but_not_everything() {
        let mut data = published(&ca(), &ca());
        data.remove(UID_HEADERS);
        data.remove(ALLOWED_NAMES);
        data.remove(CLIENT_CA);
        let read = AuthenticationConfiguration::read(&data).unwrap();
        assert!(read.client_ca.is_none());
        assert!(read.front_proxy.unwrap().headers.uid.is_empty());
        data.remove(FRONT_PROXY_CA);
        assert!(AuthenticationConfiguration::read(&data).unwrap_err().to_string().contains(NAME));
        assert!(AuthenticationConfiguration::read(&BTreeMap::new()).is_err());
    }

    #[test]
    fn garbage_is_refused_by_its_key() {
        let good = published(&ca(), &ca());
        for (key, value) in [
            (CLIENT_CA, "nonsense"),
            (FRONT_PROXY_CA, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            (ALLOWED_NAMES, "front-proxy-client"),
            (ALLOWED_NAMES, r#"[""]"#),
            (USER_HEADERS, "[]"),
            (USER_HEADERS, r#"["a b"]"#),
            (GROUP_HEADERS, r#"{"a":1}"#),
            (EXTRA_PREFIXES, r#"[7]"#),
        ] {
            let mut data = good.clone();
            data.insert(key.into(), value.into());
            let error = AuthenticationConfiguration::read(&data).unwrap_err().to_string();
            assert!(error.contains(key), "{key}={value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(text in ".{0,80}") {
            let data = [(ALLOWED_NAMES.to_owned(), text)].into();
            if let Ok(entries) = list(&data, ALLOWED_NAMES) {
                prop_assert!(entries.iter().all(|entry| !entry.is_empty()));
            }
        }
    }
}
