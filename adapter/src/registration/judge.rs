//! What to do about an APIService as it is now.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference};
use serde_json::{Value, json};

use super::RegistrationSettings;
use crate::GroupVersion;

/// What everyone uses who serves metrics.
const GROUP_PRIORITY: i32 = 100;

/// How an APIService stands to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Ours,
    Foreign,
    Absent,
    Outdated,
    Unknown,
}

impl State {
    pub(super) const ALL: [Self; 5] = [Self::Ours, Self::Foreign, Self::Absent, Self::Outdated, Self::Unknown];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Foreign => "foreign",
            Self::Absent => "absent",
            Self::Outdated => "outdated",
            Self::Unknown => "unknown",
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    pub(super) state: State,
    pub(super) todo: Todo,
}

/// The one step that helps.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Todo {
    Nothing,
    /// Somebody has to decide: told with the way out.
    Tell(String),
    Create(Box<APIService>),
    /// A merge patch of exactly the version that was judged.
    Patch(Value),
}

pub(super) fn name(version: &GroupVersion) -> String {
    format!("{}.{}", version.version, version.group)
}

/// Judges `found`; `bundle` is what it must trust, if that is ours to say.
pub(super) fn judge(
    found: Option<&APIService>,
    version: &GroupVersion,
    settings: &RegistrationSettings,
    bundle: Option<&str>,
) -> Judgement {
    let name = name(version);
    let Some(found) = found else {
        let todo = if settings.create {
            Todo::Create(Box::new(whole(version, settings, bundle)))
        } else {
            Todo::Tell(format!(
                "APIService {name} does not exist: apply weir's manifests, or let weir make it with --create-apiservices"
            ))
        };
        return Judgement { state: State::Absent, todo };
    };
    let spec = found.spec.as_ref();
    let service = spec.and_then(|spec| spec.service.as_ref());
    let is_ours = service.is_some_and(|service| {
        service.name.as_deref() == Some(&settings.service) && service.namespace.as_deref() == Some(&settings.namespace)
    });
    if !is_ours && !settings.take_over {
        return Judgement { state: State::Foreign, todo: Todo::Tell(belongs_to(&name, service, version, settings)) };
    }
    let mut changes = serde_json::Map::new();
    if !is_ours {
        let RegistrationSettings { service, namespace, port, .. } = settings;
        changes.insert("service".into(), json!({ "name": service, "namespace": namespace, "port": port }));
    }
    if let Some(bundle) = bundle {
        let trusted = spec.and_then(|spec| spec.ca_bundle.as_ref()).map_or(&[][..], |ByteString(bytes)| bytes);
        if !trusts(trusted, bundle) {
            changes.insert("caBundle".into(), json!(ByteString(bundle.as_bytes().to_vec())));
        }
        // Not verifying, and a bundle to verify with, exclude each other.
        if spec.and_then(|spec| spec.insecure_skip_tls_verify) == Some(true) {
            changes.insert("insecureSkipTLSVerify".into(), json!(false));
        }
    }
    if changes.is_empty() {
        return Judgement { state: State::Ours, todo: Todo::Nothing };
    }
    let patch = json!({ "metadata": { "resourceVersion": found.metadata.resource_version }, "spec": changes });
    Judgement { state: if is_ours { State::Outdated } else { State::Foreign }, todo: Todo::Patch(patch) }
}

/// Whether all that is in `bundle` is trusted. More may be: of two replicas one learns of a new authority first, and the other
/// must not take it away again.
fn trusts(trusted: &[u8], bundle: &str) -> bool {
    let trusted = String::from_utf8_lossy(trusted);
    bundle.split_inclusive("-----END CERTIFICATE-----").all(|certificate| trusted.contains(certificate.trim()))
}

fn belongs_to(name: &str, service: Option<&ServiceReference>, version: &GroupVersion, settings: &RegistrationSettings) -> String {
    let owner = match service {
        None => "the Kubernetes API server itself".to_owned(),
        Some(service) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("Service {}/{}", text(&service.namespace), text(&service.name))
        }
    };
    let others = if version.group == crate::EXTERNAL.group { "custom" } else { "external" };
    format!(
        "APIService {name} belongs to {owner}, so HorizontalPodAutoscalers read {} there and not from {}/{}: leave it to it with \
         --metrics-apis {others}, or take it over with --take-over-apiservices",
        version.group, settings.namespace, settings.service
    )
}

fn whole(version: &GroupVersion, settings: &RegistrationSettings, bundle: Option<&str>) -> APIService {
    // The autoscaler takes the version with the greater priority.
    let version_priority = if version.version == crate::CUSTOM_V1BETA2.version { 200 } else { 100 };
    APIService {
        metadata: ObjectMeta {
            name: Some(name(version)),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "weir".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            ca_bundle: bundle.map(|bundle| ByteString(bundle.as_bytes().to_vec())),
            group: Some(version.group.to_owned()),
            group_priority_minimum: GROUP_PRIORITY,
            insecure_skip_tls_verify: None,
            service: Some(ServiceReference {
                name: Some(settings.service.clone()),
                namespace: Some(settings.namespace.clone()),
                port: Some(i32::from(settings.port)),
            }),
            version: Some(version.version.to_owned()),
            version_priority,
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CUSTOM_V1BETA2, EXTERNAL};

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn settings() -> RegistrationSettings {
        RegistrationSettings {
            service: "weir".into(),
            namespace: "inference".into(),
            port: 443,
            versions: vec![EXTERNAL],
            take_over: false,
            create: false,
        }
    }

    fn ours(bundle: Option<&str>) -> APIService {
        let mut service = whole(&EXTERNAL, &settings(), bundle);
        service.metadata.resource_version = Some("7".into());
        service
    }

    fn of_keda() -> APIService {
        let mut service = ours(Some(TWO));
        let spec = service.spec.as_mut().unwrap();
        spec.service = Some(ServiceReference { name: Some("keda-metrics".into()), namespace: Some("keda".into()), port: None });
        service
    }

    #[test]
    fn ours_is_made_to_trust_the_bundle() {
        let patch = |found: &APIService, bundle: Option<&str>| judge(Some(found), &EXTERNAL, &settings(), bundle).todo;
        let encoded = json!(ByteString(ONE.as_bytes().to_vec()));
        for found in [ours(None), ours(Some(TWO)), ours(Some("nonsense"))] {
            let expected = json!({ "metadata": { "resourceVersion": "7" }, "spec": { "caBundle": encoded } });
            assert_eq!(patch(&found, Some(ONE)), Todo::Patch(expected));
        }
        assert_eq!(patch(&ours(Some(ONE)), Some(ONE)), Todo::Nothing);
        assert_eq!(patch(&ours(Some(&format!("{ONE}{TWO}"))), Some(ONE)), Todo::Nothing, "a replica that knows more was here");
        let both = format!("{ONE}{TWO}");
        assert!(matches!(patch(&ours(Some(ONE)), Some(&both)), Todo::Patch(_)));
        assert_eq!(patch(&ours(None), None), Todo::Nothing, "given files are somebody else's");
        let mut insecure = ours(None);
        insecure.spec.as_mut().unwrap().insecure_skip_tls_verify = Some(true);
        let Todo::Patch(secured) = patch(&insecure, Some(ONE)) else { panic!() };
        assert_eq!(secured["spec"]["insecureSkipTLSVerify"], json!(false));
    }

    #[test]
    fn what_belongs_to_another_is_left_to_it() {
        let judged = judge(Some(&of_keda()), &EXTERNAL, &settings(), Some(ONE));
        assert_eq!(judged.state, State::Foreign);
        let Todo::Tell(text) = judged.todo else { panic!() };
        for part in
            ["v1beta1.external.metrics.k8s.io", "Service keda/keda-metrics", "--metrics-apis custom", "--take-over-apiservices"]
        {
            assert!(text.contains(part), "{text}");
        }
        let mut local = of_keda();
        local.spec.as_mut().unwrap().service = None;
        assert!(
            matches!(judge(Some(&local), &CUSTOM_V1BETA2, &settings(), None).todo, Todo::Tell(text) if text.contains("API server itself") && text.contains("--metrics-apis external"))
        );
        let empty = APIService::default();
        assert_eq!(judge(Some(&empty), &EXTERNAL, &settings(), None).state, State::Foreign);
    }

    #[test]
    fn taking_over_changes_owner_and_trust_in_one_step() {
        let settings = RegistrationSettings { take_over: true, ..settings() };
        let Todo::Patch(patch) = judge(Some(&of_keda()), &EXTERNAL, &settings, Some(ONE)).todo else { panic!() };
        assert_eq!(patch["spec"]["service"], json!({ "name": "weir", "namespace": "inference", "port": 443 }));
        assert!(patch["spec"]["caBundle"].is_string());
    }

    #[test]
    fn what_is_absent_is_created_when_asked_to() {
        let judged = judge(None, &EXTERNAL, &settings(), Some(ONE));
        assert!(matches!(judged.todo, Todo::Tell(text) if text.contains("--create-apiservices")));
        let settings = RegistrationSettings { create: true, ..settings() };
        let Todo::Create(made) = judge(None, &CUSTOM_V1BETA2, &settings, Some(ONE)).todo else { panic!() };
        assert_eq!(made.metadata.name.as_deref(), Some("v1beta2.custom.metrics.k8s.io"));
        assert_eq!(made.spec.unwrap().version_priority, 200);
    }
}
