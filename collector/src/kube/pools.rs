//! The InferencePools of the scope, of both groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::core::DynamicObject;
use weir_datastore::PoolId;
use weir_k8s::{FieldProblem, InferencePool, PoolVersion};

use super::PodsScope;
use super::follow::Change;
use super::problems::Problem;

/// A pool as a watch tells of it.
#[derive(Debug)]
pub(super) struct PoolFacts {
    id: PoolId,
    uid: Arc<str>,
    read: Result<Arc<InferencePool>, Vec<FieldProblem>>,
}

impl PoolFacts {
    pub(super) fn of(version: PoolVersion, object: DynamicObject) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&object.metadata.namespace), text(&object.metadata.name));
        let uid = text(&object.metadata.uid).into();
        Self { id: PoolId::new(&namespace, &name), uid, read: InferencePool::read(version, object).map(Arc::new) }
    }

    /// What an InferencePool would say that chooses these pods.
    pub(super) fn of_pods(scope: &PodsScope) -> Self {
        let PodsScope { pool: id, labels, target_ports } = scope;
        let pool = InferencePool {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            uid: "".into(),
            version: PoolVersion::V1,
            selector: labels.clone(),
            target_ports: target_ports.clone(),
            app_protocol: "http".into(),
            picker: None,
            annotations: BTreeMap::new(),
            problems: Vec::new(),
        };
        Self { id: id.clone(), uid: "".into(), read: Ok(Arc::new(pool)) }
    }
}

/// One pool in one group.
#[derive(Debug)]
struct Entry {
    uid: Arc<str>,
    /// The last version of it that was good.
    good: Option<Arc<InferencePool>>,
    /// What of the present version is wrong.
    problems: Vec<FieldProblem>,
}

/// The pools of one group.
#[derive(Debug, Default)]
struct Group {
    known: BTreeMap<PoolId, Entry>,
    /// Answers in a row that the group is not served.
    absences: u32,
}

/// The pools of the scope.
#[derive(Debug, Default)]
pub(super) struct Pools {
    groups: BTreeMap<PoolVersion, Group>,
}

impl Pools {
    pub(super) fn len(&self, version: PoolVersion) -> usize {
        self.groups.get(&version).map_or(0, |group| group.known.len())
    }

    /// Takes `change` in; the pools that it touches.
    pub(super) fn apply(&mut self, version: PoolVersion, change: Change<PoolFacts>) -> BTreeSet<PoolId> {
        let group = self.groups.entry(version).or_default();
        if !matches!(change, Change::Absent) {
            group.absences = 0;
        }
        match change {
            Change::All(all) => {
                let mut before = std::mem::take(&mut group.known);
                let mut touched: BTreeSet<PoolId> = before.keys().cloned().collect();
                for facts in all {
                    touched.insert(facts.id.clone());
                    let old = before.remove(&facts.id);
                    group.known.insert(facts.id.clone(), Entry::of(facts, old));
                }
                touched
            }
            Change::Applied(facts) => {
                let id = facts.id.clone();
                let old = group.known.remove(&id);
                group.known.insert(id.clone(), Entry::of(facts, old));
                BTreeSet::from([id])
            }
            Change::Deleted(facts) => {
                group.known.remove(&facts.id);
                BTreeSet::from([facts.id])
            }
            Change::Absent => {
                group.absences = group.absences.saturating_add(1);
                // Said once it may be an API server that has just begun; the pools of a kind that is removed go one by one.
                match group.absences > 1 {
                    true => std::mem::take(&mut group.known).into_keys().collect(),
                    false => BTreeSet::new(),
                }
            }
            Change::Forbidden => BTreeSet::new(),
        }
    }

    /// The pool called `id` that counts, if one is good, and everything that is wrong with its objects.
    pub(super) fn get(&self, id: &PoolId) -> (Option<&Arc<InferencePool>>, Vec<Problem>) {
        let of_group = |(version, group): (&PoolVersion, &'_ Group)| Some((*version, group.known.get(id)?.good.clone()));
        let both: Vec<_> = self.groups.iter().filter_map(of_group).collect();
        let entries = || self.groups.iter().filter_map(|(version, group)| Some((*version, group.known.get(id)?)));
        let mut problems = Vec::new();
        for (version, entry) in entries() {
            let object = || format!("InferencePool {id} ({version})");
            let way = match &entry.good {
                Some(good) if entry.problems == good.problems => "",
                Some(_) => "; the last good version stays",
                None => "; the pool is left out",
            };
            problems.extend(entry.problems.iter().map(|problem| Problem {
                code: None,
                object: object(),
                field: problem.field.clone(),
                message: format!("{}{way}", problem.message),
            }));
        }
        let counts = entries().find_map(|(version, entry)| Some((version, entry.good.as_ref()?)));
        if let Some((version, _)) = counts {
            for (other, _) in both.iter().filter(|(other, _)| *other != version) {
                let message = format!("that of {version} counts: remove this one once nothing refers to it");
                problems.push(Problem {
                    code: None,
                    object: format!("InferencePool {id} ({other})"),
                    field: "apiVersion".into(),
                    message,
                });
            }
        }
        (counts.map(|(_, pool)| pool), problems)
    }

    /// The good pools of `namespace`, in each group.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&PoolId, &Arc<InferencePool>)> {
        let first = PoolId::new(namespace, "");
        self.groups.values().flat_map(move |group| {
            let own = group.known.range(first.clone()..).take_while({
                let first = first.clone();
                move |(id, _)| id.namespace == first.namespace
            });
            own.filter_map(|(id, entry)| Some((id, entry.good.as_ref()?)))
        })
    }

    /// The names of all.
    pub(super) fn ids(&self) -> BTreeSet<PoolId> {
        self.groups.values().flat_map(|group| group.known.keys().cloned()).collect()
    }
}

impl Entry {
    /// What becomes of `old` by `facts`.
    fn of(facts: PoolFacts, old: Option<Self>) -> Self {
        let PoolFacts { uid, read, .. } = facts;
        match read {
            Ok(pool) => Self { uid, problems: pool.problems.clone(), good: Some(pool) },
            // Of the same object, not of a namesake before it.
            Err(problems) => Self { good: old.filter(|old| old.uid == uid).and_then(|old| old.good), uid, problems },
        }
    }
}
