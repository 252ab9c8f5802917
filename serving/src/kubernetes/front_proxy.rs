//! Callers that the API server vouches for: its own certificate, and headers that name the user.

use std::{collections::BTreeMap, time::SystemTime};

use http::{HeaderMap, HeaderName, request::Parts};
use percent_encoding::percent_decode_str;

use super::{
    configuration::ProxyHeaders,
    peer_chain::{PeerChain, Standing},
    trust::{ClusterTrust, FrontProxyTrust},
};
use crate::{Authenticator, Caller, Decision, Verdict};

/// Groups, extra values and their keys taken from one request.
const MOST_VALUES: usize = 1024;
/// What carries the user of a request that was passed on, whatever it is configured to be called.
const REMOTE: &str = "x-remote-";

/// Accepts a request that comes with a certificate of the front proxy and names a user in the headers of the
/// configuration. Without such a certificate the headers mean nothing.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    trust: ClusterTrust,
}

impl FrontProxy {
    /// As `trust` says at each request.
    pub fn new(trust: ClusterTrust) -> Self {
        Self { trust }
    }

    fn judge(&self, request: &Parts, now: SystemTime) -> Verdict {
        let Some(chain) = request.extensions.get::<PeerChain>() else {
            return Verdict::NoOpinion;
        };
        let Some(trust) = self.trust.current() else {
            return Verdict::NoOpinion;
        };
        let Some(proxy) = &trust.front_proxy else {
            return Verdict::NoOpinion;
        };
        let judgement = chain.judge(&trust, now);
        match (judgement.front_proxy, chain.leaf()) {
            (Standing::Verified, Some(leaf)) if allows(proxy, &leaf.common_name) => match user(&request.headers, &proxy.headers) {
                Ok(Some(caller)) => Verdict::Accepted(caller),
                Ok(None) => Verdict::NoOpinion,
                Err(reason) => Verdict::Rejected(reason),
            },
            (Standing::Verified, _) => Verdict::Rejected("the front proxy certificate's name is not in the allowed list"),
            // A user's own certificate is for the next way to judge.
            (_, _) if judgement.client == Standing::Verified => Verdict::NoOpinion,
            (_, _) => Verdict::Rejected("the client certificate is not the front proxy's"),
        }
    }
}

fn allows(proxy: &FrontProxyTrust, common_name: &str) -> bool {
    proxy.allowed_names.is_empty() || proxy.allowed_names.iter().any(|allowed| allowed == common_name)
}

/// The user that the headers name. A value that is no text names nobody: it is not guessed at.
fn user(headers: &HeaderMap, names: &ProxyHeaders) -> Result<Option<Caller>, &'static str> {
    let Some(name) = first(headers, &names.user)? else {
        return Ok(None);
    };
    let mut groups = Vec::new();
    for value in names.group.iter().flat_map(|name| headers.get_all(name)) {
        groups.push(value.to_str().map_err(|_| NOT_TEXT)?.to_owned());
        if groups.len() > MOST_VALUES {
            return Err(TOO_MANY);
        }
    }
    let uid = first(headers, &names.uid)?;
    Ok(Some(Caller::new(name, groups).with_uid(uid).with_extra(extra(headers, &names.extra_prefixes)?)))
}

const NOT_TEXT: &str = "a header of the front proxy is no text";
const TOO_MANY: &str = "too many headers of the front proxy";

fn first<'a>(headers: &'a HeaderMap, names: &[HeaderName]) -> Result<Option<&'a str>, &'static str> {
    for name in names {
        if let Some(value) = headers.get(name) {
            let value = value.to_str().map_err(|_| NOT_TEXT)?;
            if !value.is_empty() {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

fn extra(headers: &HeaderMap, prefixes: &[String]) -> Result<BTreeMap<String, Vec<String>>, &'static str> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (taken, (name, value, key)) in headers
        .iter()
        .filter_map(|(name, value)| {
            let key = prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))?;
            Some((name, value, key))
        })
        .enumerate()
    {
        if taken == MOST_VALUES {
            return Err(TOO_MANY);
        }
        tracing::trace!(%name, "extra attribute of the caller");
        // What is no escape stays as it is, as upstream has it.
        let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), |key| key.into_owned());
        extra.entry(key).or_default().push(value.to_str().map_err(|_| NOT_TEXT)?.to_owned());
    }
    Ok(extra)
}

impl Authenticator for FrontProxy {
    fn name(&self) -> &'static str {
        "front proxy"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, now: SystemTime) -> Decision<'a> {
        Box::pin(std::future::ready(self.judge(request, now)))
    }

    fn needs_client_certificates(&self) -> bool {
        true
    }

    fn scrub(&self, headers: &mut HeaderMap) {
        let trust = self.trust.current();
        let configured = trust.as_ref().and_then(|trust| trust.front_proxy.as_ref()).map(|proxy| &proxy.headers);
        let is_proof = |name: &HeaderName| {
            name.as_str().starts_with(REMOTE)
                || configured.is_some_and(|names| {
                    let mut exact = names.user.iter().chain(&names.group).chain(&names.uid);
                    exact.any(|own| own == name)
                        || names.extra_prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
                })
        };
        let proofs: Vec<HeaderName> = headers.keys().filter(|name| is_proof(name)).cloned().collect();
        for name in proofs {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> ProxyHeaders {
        let one = |name: &str| vec![HeaderName::try_from(name).unwrap()];
        ProxyHeaders {
            user: one("x-remote-user"),
            group: one("x-remote-group"),
            extra_prefixes: vec!["x-remote-extra-".into()],
            uid: one("x-remote-uid"),
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn users_groups_uid_and_extra_are_read() {
        let read = user(
            &headers(&[
                ("X-Remote-User", "jane"),
                ("X-Remote-Group", "one"),
                ("X-Remote-Group", "two"),
                ("X-Remote-Uid", "7"),
                ("X-Remote-Extra-Acme.com%2FProject", "a"),
                ("X-Remote-Extra-Acme.com%2FProject", "b"),
                ("X-Remote-Extra-bad%ff", "c"),
            ]),
            &names(),
        );
        let caller = read.unwrap().unwrap();
        assert_eq!((&*caller.name, caller.uid.as_deref()), ("jane", Some("7")));
        assert_eq!(&*caller.groups, ["one".to_owned(), "two".to_owned()]);
        assert_eq!(caller.extra["acme.com/project"], ["a", "b"]);
        assert_eq!(caller.extra["bad%ff"], ["c"]);
    }

    #[test]
    fn without_a_name_there_is_no_user() {
        assert_eq!(user(&headers(&[("x-remote-group", "system:masters")]), &names()), Ok(None));
        assert_eq!(user(&headers(&[("x-remote-user", "")]), &names()), Ok(None));
    }

    #[test]
    fn what_is_no_text_names_nobody() {
        let mut headers = headers(&[("x-remote-user", "jane")]);
        headers.insert("x-remote-group", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(user(&headers, &names()), Err(NOT_TEXT));
    }

    proptest! {
        #[test]
        fn any_key_is_read(key in "[a-z0-9%.]{0,40}", value in "[ -~]{0,20}") {
            let name = format!("x-remote-extra-{key}");
            let read = extra(&headers(&[(&name, &value)]), &names().extra_prefixes).unwrap();
            prop_assert_eq!(read.len(), 1);
        }
    }
}
