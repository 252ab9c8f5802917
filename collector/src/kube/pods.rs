//! The pods of the scope: what an endpoint needs of each, by namespace and labels.
//!
//! Pods of one template have the same labels, so they share one map of them, and a selector is asked once per template.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use weir_datastore::{EndpointState, PodStart};
use weir_k8s::{ContainerPort, Pod};

use super::follow::Change;
use super::starts::start_of;

/// Upstream's annotation of the target ports that a pod serves at present: numbers with commas between.
const ACTIVE_PORTS: &str = "inference.networking.k8s.io/active-ports";
/// Numbers of one such list that are kept; a pool has 8 ports at most, but pools may share a pod.
const MOST_ACTIVE_PORTS: usize = 64;
/// Characters kept of an image and its devices.
const LONGEST_SERVES_WITH: usize = 512;
/// Characters of a wrong entry that are kept.
const SHOWN: usize = 32;

pub(super) type Labels = BTreeMap<String, String>;

/// Whether `labels` has all that `selector` names.
pub(super) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A pod as a watch tells of it.
#[derive(Debug)]
pub(super) struct PodFacts {
    namespace: String,
    name: String,
    labels: Labels,
    ports: Vec<ContainerPort>,
    /// Whether a container of it has started anew.
    restarted: bool,
    /// None: nothing of it can be an endpoint (its containers have ended, or it goes away before it had an address).
    entry: Option<PodEntry>,
}

/// What is kept of one pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PodEntry {
    pub(super) uid: Arc<str>,
    /// None: what stands there is no address.
    pub(super) ip: Option<IpAddr>,
    /// Whether it has no address yet.
    pub(super) pending: bool,
    pub(super) state: EndpointState,
    /// The ports that have names.
    pub(super) ports: Arc<[ContainerPort]>,
    pub(super) active_ports: Option<Box<ActivePorts>>,
    /// None of a pod that was ready when it was first seen, for as long as it is.
    pub(super) start: Option<Box<PodStart>>,
    /// Image and devices of the container that serves: pods of one template share it.
    pub(super) serves_with: Arc<str>,
}

/// What the annotation says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ActivePorts {
    pub(super) ports: BTreeSet<u16>,
    /// The first entry that is no port.
    pub(super) wrong: Option<Box<str>>,
}

impl ActivePorts {
    /// Upstream passes over what is no port; nothing at all means that no port is active.
    fn read(text: &str) -> Self {
        let mut read = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse::<u16>() {
                Ok(port) if port > 0 && (read.ports.len() < MOST_ACTIVE_PORTS) => drop(read.ports.insert(port)),
                _ if read.wrong.is_none() => read.wrong = Some(entry.chars().take(SHOWN).collect::<String>().into()),
                _ => {}
            }
        }
        read
    }
}

impl PodFacts {
    /// `pod` as it was told at `now`, which the clock on the wall calls `wall`, in seconds since 1970.
    pub(super) fn of(mut pod: Pod, now: Instant, wall: i64) -> Self {
        let metadata = std::mem::take(&mut pod.metadata.labels).unwrap_or_default();
        let pending = pod.ip().is_empty();
        let counts = !(pod.has_ended() || pending && pod.is_terminating());
        let entry = counts.then(|| {
            let state = match (pod.is_terminating(), pod.is_ready()) {
                (true, _) => EndpointState::Terminating,
                (false, true) => EndpointState::Ready,
                (false, false) => EndpointState::Unready,
            };
            let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACTIVE_PORTS));
            PodEntry {
                uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
                ip: pod.ip().parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast()),
                pending,
                state,
                ports: Arc::default(),
                active_ports: annotation.map(|text| Box::new(ActivePorts::read(text))),
                start: (state != EndpointState::Terminating).then(|| Box::new(start_of(&pod, now, wall))),
                serves_with: pod.serves_with().chars().take(LONGEST_SERVES_WITH).collect::<String>().into(),
            }
        });
        Self {
            namespace: pod.metadata.namespace.take().unwrap_or_default(),
            name: pod.metadata.name.take().unwrap_or_default(),
            labels: metadata,
            restarted: pod.has_restarted(),
            ports: if entry.is_some() { pod.named_ports().cloned().collect() } else { Vec::new() },
            entry,
        }
    }
}

/// What a change of pods touches.
#[derive(Debug)]
pub(super) enum Touched {
    /// Whatever selects a pod with one of these labels in this namespace.
    Some { namespace: Arc<str>, labels: Vec<Arc<Labels>> },
    /// Everything.
    All,
}

/// The pods of the scope.
#[derive(Debug, Default)]
pub(super) struct Pods {
    namespaces: HashMap<Arc<str>, Namespace>,
    count: usize,
    /// Pods of one template have the same ports.
    last_ports: Arc<[ContainerPort]>,
    /// And the same image.
    last_serves_with: Arc<str>,
}

#[derive(Debug, Default)]
struct Namespace {
    templates: HashMap<Arc<Labels>, BTreeMap<Arc<str>, PodEntry>>,
    labels: HashMap<Arc<str>, Arc<Labels>>,
}

impl Namespace {
    fn entry(&self, name: &str) -> Option<&PodEntry> {
        self.templates.get(self.labels.get(name)?)?.get(name)
    }
}

/// A pod that a selector chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected<'pods> {
    pub(super) name: &'pods Arc<str>,
    pub(super) labels: &'pods Arc<Labels>,
    pub(super) entry: &'pods PodEntry,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes `change` in; none where nothing of it counts.
    pub(super) fn apply(&mut self, change: Change<PodFacts>) -> Option<Touched> {
        match change {
            Change::All(all) => {
                let before = std::mem::take(self);
                for facts in all {
                    self.put(facts, Some(&before));
                }
                self.namespaces.shrink_to_fit();
                Some(Touched::All)
            }
            Change::Applied(facts) => self.put(facts, None),
            Change::Deleted(facts) => self.put(PodFacts { entry: None, ..facts }, None),
            // The API server always serves pods; where it must not show them, what was known stays.
            Change::Absent | Change::Forbidden => None,
        }
    }

    /// The pods of `namespace` that have the labels of `selector`, by template and name.
    pub(super) fn select<'pods>(&'pods self, namespace: &str, selector: &'pods Labels) -> impl Iterator<Item = Selected<'pods>> {
        let templates = self.namespaces.get(namespace).into_iter().flat_map(|namespace| &namespace.templates);
        let chosen = templates.filter(|(labels, _)| selects(selector, labels));
        chosen.flat_map(|(labels, pods)| pods.iter().map(move |(name, entry)| Selected { name, labels, entry }))
    }

    fn put(&mut self, facts: PodFacts, before: Option<&Self>) -> Option<Touched> {
        let PodFacts { namespace: namespace_name, name, labels, ports, restarted, entry } = facts;
        let known_before = before.and_then(|before| before.namespaces.get(&*namespace_name));
        let mut entry = entry.map(|entry| PodEntry {
            ports: self.shared_ports(ports),
            serves_with: self.shared_image(entry.serves_with),
            ..entry
        });
        if !self.namespaces.contains_key(&*namespace_name) {
            entry.as_ref()?;
            self.namespaces.insert(namespace_name.as_str().into(), Namespace::default());
        }
        let namespace_key = self.namespaces.get_key_value(&*namespace_name)?.0.clone();
        let namespace = self.namespaces.get_mut(&namespace_key)?;
        if let Some(entry) = &mut entry {
            let old = known_before.unwrap_or(namespace).entry(&name).filter(|old| old.uid == entry.uid);
            entry.follow(old, before.is_some(), restarted);
        }
        let mut touched = Vec::new();
        let mut name: Arc<str> = name.into();
        if let Some((known_name, old_labels)) = namespace.labels.get_key_value(&name) {
            name = known_name.clone();
            let old_labels = old_labels.clone();
            let old = namespace.templates.get(&old_labels).and_then(|pods| pods.get(&name));
            if *old_labels == labels && old.is_some_and(|old| Some(old) == entry.as_ref()) {
                return None;
            }
            if entry.is_none() || *old_labels != labels {
                namespace.labels.remove(&name);
                if let Some(pods) = namespace.templates.get_mut(&old_labels) {
                    pods.remove(&name);
                    if pods.is_empty() {
                        namespace.templates.remove(&old_labels);
                    }
                }
                self.count -= 1;
            }
            touched.push(old_labels);
        }
        if let Some(entry) = entry {
            let known = namespace.templates.get_key_value(&labels);
            // The maps of before are used again, so that a list that tells nothing new costs no new ones.
            let known = known.or_else(|| known_before.and_then(|before| before.templates.get_key_value(&labels)));
            let labels = known.map_or_else(|| Arc::new(labels), |(known, _)| known.clone());
            if namespace.labels.insert(name.clone(), labels.clone()).is_none() {
                self.count += 1;
            }
            namespace.templates.entry(labels.clone()).or_default().insert(name, entry);
            if !touched.contains(&labels) {
                touched.push(labels);
            }
        }
        if namespace.labels.is_empty() {
            self.namespaces.remove(&namespace_key);
        }
        (!touched.is_empty()).then_some(Touched::Some { namespace: namespace_key, labels: touched })
    }

    fn shared_image(&mut self, serves_with: Arc<str>) -> Arc<str> {
        if self.last_serves_with != serves_with {
            self.last_serves_with = serves_with;
        }
        self.last_serves_with.clone()
    }

    fn shared_ports(&mut self, ports: Vec<ContainerPort>) -> Arc<[ContainerPort]> {
        if *self.last_ports != *ports {
            self.last_ports = ports.into();
        }
        self.last_ports.clone()
    }
}
