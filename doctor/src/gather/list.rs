//! Listing objects of one kind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ask::{Asker, Problem, segment};
use super::prepare::{Fact, prepare};
use crate::facts::monitoring::{MonitorEndpoint, SecretName};
use crate::facts::scaling::ApiService;
use crate::facts::workload::Crd;
use crate::facts::{Facts, Listing, Reason};

/// Objects asked for at once.
const PAGE: usize = 500;
/// Most objects of a kind.
const MOST: usize = 20_000;
/// Broken objects that are named.
const NAMED: usize = 5;

/// What is listed, and where.
#[derive(Clone, Copy)]
pub(super) struct Kind<'options> {
    /// `api/v1/pods`, with a query or without.
    pub(super) path: &'static str,
    /// One namespace alone.
    pub(super) own: Option<&'options str>,
    /// The namespace to fall back to where all may not be listed.
    pub(super) fallback: &'options str,
}

impl Kind<'_> {
    /// Group and version, and the plural with its query.
    fn parts(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('/').unwrap_or(("", self.path))
    }

    fn url(&self, namespace: Option<&str>) -> String {
        let (before, plural) = self.parts();
        match namespace {
            Some(namespace) => format!("/{before}/namespaces/{}/{plural}", segment(namespace)),
            None => format!("/{}", self.path),
        }
    }

    /// What it takes: verb, resource, namespace.
    fn right(&self, namespace: Option<&str>) -> String {
        let (before, plural) = self.parts();
        let plural = plural.split('?').next().unwrap_or(plural);
        let group = before.strip_prefix("apis/").and_then(|rest| rest.split('/').next());
        let resource = group.map_or_else(|| plural.to_owned(), |group| format!("{plural}.{group}"));
        match namespace {
            Some(namespace) => format!("list {resource} in namespace {namespace}"),
            None => format!("list {resource} in all namespaces"),
        }
    }
}

/// Lists `kind` where it was asked for; where all namespaces may not be listed, in the one of the kubeconfig.
pub(super) async fn all<T: DeserializeOwned + Fact>(asker: &Asker, kind: Kind<'_>) -> Listing<T> {
    let whole = within(asker, kind, kind.own).await;
    let is_forbidden = matches!(whole.why, Some(Reason::Forbidden(_)));
    if kind.own.is_some() || !is_forbidden || kind.path == "api/v1/nodes" {
        return whole;
    }
    let one = within(asker, kind, Some(kind.fallback)).await;
    // What may be read is used; that the rest may not stays said.
    Listing { why: whole.why, ..one }
}

/// Lists the first of `kinds` that the API server has.
pub(super) async fn first_served<T: DeserializeOwned + Fact, const MANY: usize>(
    asker: &Asker,
    kinds: [Kind<'_>; MANY],
) -> Listing<T> {
    let mut listing = Listing::none(Reason::NotServed);
    for kind in kinds {
        listing = all(asker, kind).await;
        if !listing.not_served() {
            break;
        }
    }
    listing
}

async fn within<T: DeserializeOwned + Fact>(asker: &Asker, kind: Kind<'_>, namespace: Option<&str>) -> Listing<T> {
    let mut listing = Listing { namespaces: namespace.map(|namespace| vec![namespace.to_owned()]), ..Listing::of(Vec::new()) };
    let mut next: Option<String> = None;
    loop {
        let url = kind.url(namespace);
        let joint = if url.contains('?') { '&' } else { '?' };
        let more = next.as_deref().map_or_else(String::new, |next| format!("&continue={}", segment(next)));
        let page = match asker.get(&format!("{url}{joint}limit={PAGE}{more}")).await {
            Ok(page) => page,
            Err(problem) => {
                return Listing { namespaces: listing.namespaces, ..Listing::none(problem.reason(&kind.right(namespace))) };
            }
        };
        let mut page: Value = match serde_json::from_str(&page) {
            Ok(page) => page,
            Err(error) => {
                let problem = Problem { status: None, late: false, message: format!("no JSON: {error}") };
                return Listing { namespaces: listing.namespaces, ..Listing::none(problem.reason(&kind.right(namespace))) };
            }
        };
        let items = listing.items.get_or_insert_default();
        for object in page["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            if items.len() >= MOST {
                listing.cut = true;
                return listing;
            }
            match read(object) {
                Ok(object) => items.push(object),
                Err(error) if listing.unreadable.len() < NAMED => listing.unreadable.push(error),
                Err(_) => {}
            }
        }
        next = page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()).map(str::to_owned);
        if next.is_none() {
            return listing;
        }
    }
}

fn read<T: DeserializeOwned + Fact>(mut object: Value) -> Result<T, String> {
    prepare(&mut object);
    let name = object["metadata"]["name"].as_str().unwrap_or("?").to_owned();
    let mut fact: T = serde_json::from_value(object).map_err(|error| crate::facts::scrub::text(&format!("{name}: {error}")))?;
    fact.settle();
    Ok(fact)
}

/// The objects of a second group beside those of a first.
pub(super) fn add<T>(first: &mut Listing<T>, second: Listing<T>) {
    if second.not_served() {
        return;
    }
    if first.not_served() {
        *first = second;
        return;
    }
    match (&mut first.items, second.items) {
        (Some(items), Some(more)) => items.extend(more),
        (items, more) => *items = items.take().or(more),
    }
    first.why = first.why.take().or(second.why);
    first.cut |= second.cut;
    first.unreadable.extend(second.unreadable);
}

/// The CRDs of this program's concern; others can be large.
pub(super) async fn crds(asker: &Asker) -> Listing<Crd> {
    let names = ["inferencepools.inference.networking.k8s.io", "inferencepools.inference.networking.x-k8s.io"];
    let paths = names.map(|name| format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"));
    each(asker, &paths, "get customresourcedefinitions.apiextensions.k8s.io").await
}

/// The APIServices of the metrics APIs.
pub(super) async fn api_services(asker: &Asker) -> Listing<ApiService> {
    let names = ["v1beta1.external.metrics.k8s.io", "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"];
    let paths = names.map(|name| format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}"));
    each(asker, &paths, "get apiservices.apiregistration.k8s.io").await
}

/// Objects by their paths; those that are not there are left out.
async fn each<T: DeserializeOwned + Fact>(asker: &Asker, paths: &[String], right: &str) -> Listing<T> {
    let mut listing = Listing::of(Vec::new());
    for answer in futures_util::future::join_all(paths.iter().map(|path| asker.get(path))).await {
        match answer {
            Ok(text) => match serde_json::from_str(&text).map_err(|error| error.to_string()).and_then(read) {
                Ok(object) => listing.items.get_or_insert_default().push(object),
                Err(error) => listing.unreadable.push(error),
            },
            Err(problem) if problem.status == Some(404) => {}
            Err(problem) => return Listing::none(problem.reason(right)),
        }
    }
    listing
}

/// Whether the Secrets that monitors name are there: their metadata alone is asked for.
pub(super) async fn secrets(asker: &Asker, facts: &Facts) -> Listing<SecretName> {
    let mut wanted: Vec<(String, String)> = Vec::new();
    let services = facts
        .service_monitors
        .iter()
        .map(|monitor| (monitor.metadata.as_ref(), monitor.spec.as_ref().and_then(|spec| spec.endpoints.as_ref())));
    let pods = facts
        .pod_monitors
        .iter()
        .map(|monitor| (monitor.metadata.as_ref(), monitor.spec.as_ref().and_then(|spec| spec.pod_metrics_endpoints.as_ref())));
    for (metadata, endpoints) in services.chain(pods) {
        let namespace = crate::look::meta(metadata).namespace().to_owned();
        let names = endpoints.into_iter().flatten().filter_map(MonitorEndpoint::secret).filter(|name| !name.is_empty());
        wanted.extend(names.map(|name| (namespace.clone(), name.to_owned())));
    }
    wanted.sort();
    wanted.dedup();
    let mut listing = Listing { cut: wanted.len() > PAGE, ..Listing::of(Vec::new()) };
    wanted.truncate(PAGE);
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let ask = |(namespace, name): (String, String)| async move {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", segment(&namespace), segment(&name));
        let present = asker.get_as(&path, accept).await.map(|_| true);
        (namespace, name, present)
    };
    for (namespace, name, present) in futures_util::future::join_all(wanted.into_iter().map(ask)).await {
        let present = match present {
            Ok(present) => present,
            Err(problem) if problem.status == Some(404) => false,
            Err(problem) => {
                listing.why = Some(problem.reason(&format!("get secrets in namespace {namespace}")));
                continue;
            }
        };
        listing.items.get_or_insert_default().push(SecretName {
            namespace: Some(namespace),
            name: Some(name),
            present: Some(present),
        });
    }
    listing
}
