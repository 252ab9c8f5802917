//! What a label selector means here: which pools, which of their pods, and how several values become one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_datastore::selector::{Operator, Requirement, Selector};
use weir_datastore::{Datastore, PoolId};

use crate::config::{AdapterConfig, ResourceLabels};
use crate::error::{ApiError, shown};
use crate::reducer::Reducer;

/// Longest selector in bytes: some two hundred pool names. What is longer is no selector that a person wrote.
const LONGEST_SELECTOR: usize = 16 * 1024;

/// Most namespaces that one selector may name: each is authorised by itself.
const MOST_NAMESPACES: usize = 32;

/// Most pools that are looked up one by one; of more names all pools are gone through.
const MOST_LOOKUPS: usize = 64;

/// Before the key of a pod's label.
const POD_PREFIX: &str = "pod.";

/// What the keys of the GKE dialect begin with, those too that say nothing here.
const GKE_PREFIXES: [&str; 4] = ["metric.labels.", "resource.labels.", "metadata.system_labels.", "metadata.user_labels."];

/// Whether GKE's adapter knows `key`.
fn is_gke_key(key: &str) -> bool {
    matches!(key, "resource.type" | "reducer") || GKE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The keys that are allowed, plain and in GKE's dialect, and what each is compared with.
const KEYS: &[(&str, Key)] = &[
    ("name", Key::Name),
    ("pool", Key::Name),
    ("inference_pool", Key::Name),
    ("namespace", Key::Namespace),
    ("metric.labels.name", Key::Name),
    ("metric.labels.pool", Key::Name),
    ("metric.labels.inference_pool", Key::Name),
    ("metric.labels.namespace", Key::Namespace),
    ("resource.labels.namespace", Key::Namespace),
    ("resource.labels.namespace_name", Key::Namespace),
    ("resource.labels.cluster", Key::Constant(|constants| &constants.cluster)),
    ("resource.labels.cluster_name", Key::Constant(|constants| &constants.cluster)),
    ("resource.labels.location", Key::Constant(|constants| &constants.location)),
    ("resource.labels.project_id", Key::Constant(|constants| &constants.project_id)),
    ("resource.type", Key::Constant(|constants| &constants.resource_type)),
    ("reducer", Key::Reducer),
    ("model", Key::Model),
    ("metric.labels.model", Key::Model),
];

/// What a key is about.
#[derive(Clone, Copy)]
enum Key {
    /// The pool's name.
    Name,
    /// The pool's namespace.
    Namespace,
    /// Something that is one and the same for all pools here.
    Constant(Constant),
    /// How several values become one.
    Reducer,
    /// The model whose requests count.
    Model,
}

/// Which of the constants.
type Constant = fn(&ResourceLabels) -> &Option<String>;

/// A selector, taken apart.
pub(crate) struct Query {
    text: String,
    names: Vec<Requirement>,
    namespaces: Vec<Requirement>,
    constants: Vec<(Constant, Requirement)>,
    /// Which endpoints of the pools count, by the labels of their pods.
    pub(crate) pods: Selector,
    /// The one model whose requests count, and the key that it was asked by; none: all models together.
    pub(crate) model: Option<(String, String)>,
    /// None where the selector has no reducer.
    pub(crate) reducer: Option<Reducer>,
    /// Whether a key is of the GKE dialect: the labels of the answer are then, too.
    is_gke: bool,
}

/// The namespaces whose pools a query is about.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// The request's own, which was authorised.
    Own,
    /// These.
    Named(Vec<Arc<str>>),
    /// All that the requirements match, which are these words.
    Open(String),
}

/// Reads a selector of bounded length.
///
/// # Errors
/// [`ApiError`] with 400 where the text is too long or no selector.
pub(crate) fn read_selector(text: &str) -> Result<Selector, ApiError> {
    if text.len() > LONGEST_SELECTOR {
        return Err(ApiError::SelectorTooLong { length: text.len(), most: LONGEST_SELECTOR });
    }
    Ok(Selector::parse(text)?)
}

impl Query {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`ApiError`] with 400 where the text is no selector or has a key that is not allowed, 501 for a reducer that is not
    /// implemented.
    pub(crate) fn read(text: &str) -> Result<Self, ApiError> {
        let selector = read_selector(text)?;
        let (mut names, mut namespaces, mut constants, mut pods) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut reducer = None;
        let mut model: Option<(String, String)> = None;
        let mut is_gke = false;
        for requirement in selector.requirements().iter().cloned() {
            if is_gke_key(&requirement.key) {
                // The reducer says nothing of labels.
                is_gke |= requirement.key != "reducer";
                if requirement.operator == Operator::DoesNotExist {
                    return Err(ApiError::DoesNotExist { key: shown(&requirement.key) });
                }
            }
            if let Some(label) = requirement.key.strip_prefix(POD_PREFIX) {
                pods.push(pod_requirement(label, &requirement)?);
                continue;
            }
            match KEYS.iter().find(|(key, _)| *key == requirement.key).map(|(_, key)| *key) {
                Some(Key::Name) => names.push(requirement),
                Some(Key::Namespace) => namespaces.push(requirement),
                Some(Key::Constant(constant)) => constants.push((constant, requirement)),
                Some(Key::Reducer) => {
                    let read = Reducer::read(&requirement)?;
                    if reducer.replace(read).is_some_and(|before| before != read) {
                        let known = Reducer::ALL.map(|(name, _)| name).join(", ");
                        return Err(ApiError::Reducer { asked: shown(text), known });
                    }
                }
                Some(Key::Model) => {
                    let asked = single(&requirement)
                        .filter(|name| !name.is_empty() && model.as_ref().is_none_or(|(_, known)| known == name));
                    let name = asked.ok_or_else(|| ApiError::Model { asked: shown(&requirement.to_string()) })?;
                    model = Some((requirement.key.clone(), name.to_owned()));
                }
                None => {
                    let allowed = KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ");
                    return Err(ApiError::LabelNotAllowed { key: shown(&requirement.key), allowed });
                }
            }
        }
        Ok(Self { text: shown(text.trim()), names, namespaces, constants, pods: Selector::new(pods), model, reducer, is_gke })
    }

    /// The query as errors name it.
    pub(crate) fn asked(&self, namespace: &str) -> String {
        match &*self.text {
            "" => format!("a request without selector in namespace {}", shown(namespace)),
            text => format!("the selector {text:?} in namespace {}", shown(namespace)),
        }
    }

    /// Whose pools the query is about, for a request in `namespace` that was authorised for it.
    ///
    /// # Errors
    /// [`ApiError::OtherNamespace`] where the selector names another namespace and must not, [`ApiError::TooManyNamespaces`] where
    /// it names more than can be asked about.
    pub(crate) fn reach(&self, metric: &str, namespace: &str, config: &AdapterConfig) -> Result<Reach, ApiError> {
        if self.namespaces.is_empty() {
            return Ok(Reach::Own);
        }
        if !config.allow_cross_namespace {
            return match self.namespaces.iter().find_map(|requirement| other_namespace(requirement, namespace)) {
                Some(asked) => Err(ApiError::OtherNamespace { metric: shown(metric), asked, namespace: shown(namespace) }),
                None => Ok(Reach::Own),
            };
        }
        match named(&self.namespaces) {
            Some(names) if names.len() > MOST_NAMESPACES => {
                Err(ApiError::TooManyNamespaces { count: names.len(), most: MOST_NAMESPACES })
            }
            Some(names) => Ok(Reach::Named(names.into_iter().map(Arc::from).collect())),
            None => {
                let words: Vec<_> = self.namespaces.iter().map(Requirement::to_string).collect();
                Ok(Reach::Open(shown(&words.join(","))))
            }
        }
    }

    /// The namespaces with pools that the query's requirements match.
    pub(crate) fn matching_namespaces(&self, datastore: &Datastore) -> Vec<Arc<str>> {
        let there: BTreeSet<_> = datastore.pool_ids().into_iter().map(|pool| pool.namespace).collect();
        there.into_iter().filter(|namespace| self.is_in(namespace)).collect()
    }

    /// Where to look for the pools meant in `namespaces`, in the order of the answer: those that a selector names, which need not
    /// exist, or else all that match.
    pub(crate) fn candidates(&self, datastore: &Datastore, namespaces: &[Arc<str>], config: &AdapterConfig) -> Vec<PoolId> {
        if self.mismatch(config).is_some() {
            return Vec::new();
        }
        let within = namespaces.iter().filter(|namespace| self.is_in(namespace));
        match named(&self.names) {
            Some(names) if names.len() * namespaces.len() <= MOST_LOOKUPS => within
                .flat_map(|namespace| names.iter().map(|name| PoolId { namespace: namespace.clone(), name: Arc::from(*name) }))
                .collect(),
            _ => {
                let within: BTreeSet<_> = within.collect();
                let pools = within.into_iter().flat_map(|namespace| datastore.pool_ids_in(namespace));
                pools.filter(|pool| self.names_pool(&pool.name)).collect()
            }
        }
    }

    /// Whether a pool of this name is meant.
    pub(crate) fn names_pool(&self, name: &str) -> bool {
        self.names.iter().all(|requirement| requirement.matches(Some(name)))
    }

    /// Whether pools of this namespace are meant.
    pub(crate) fn is_in(&self, namespace: &str) -> bool {
        self.namespaces.iter().all(|requirement| requirement.matches(Some(namespace)))
    }

    /// A requirement on a configured constant that does not hold, and the constant.
    pub(crate) fn mismatch<'a>(&'a self, config: &'a AdapterConfig) -> Option<(&'a Requirement, &'a str)> {
        self.constants.iter().find_map(|(constant, requirement)| {
            let value = constant(&config.resource).as_deref()?;
            (!requirement.matches(Some(value))).then_some((requirement, value))
        })
    }

    /// The labels of a value of `pool`: the plain ones, those that the query used, and where query or metric are in the GKE dialect
    /// those that its series have.
    pub(crate) fn labels(&self, pool: &PoolId, metric_is_gke: bool, config: &AdapterConfig) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([label("name", &pool.name), label("namespace", &pool.namespace)]);
        labels.extend(self.names.iter().map(|requirement| label(&requirement.key, &pool.name)));
        labels.extend(self.namespaces.iter().map(|requirement| label(&requirement.key, &pool.namespace)));
        if self.is_gke || metric_is_gke {
            labels.extend([label("metric.labels.name", &pool.name), label("resource.labels.namespace", &pool.namespace)]);
            let ResourceLabels { cluster, location, project_id, resource_type } = &config.resource;
            let constants = [
                ("resource.labels.cluster", cluster),
                ("resource.labels.location", location),
                ("resource.labels.project_id", project_id),
                ("resource.type", resource_type),
            ];
            labels.extend(constants.into_iter().filter_map(|(key, value)| Some(label(key, value.as_deref()?))));
        }
        labels.extend(self.model.iter().cloned());
        labels.extend(self.constants.iter().filter_map(|(constant, requirement)| {
            let value = constant(&config.resource).as_deref().or_else(|| single(requirement))?;
            Some(label(&requirement.key, value))
        }));
        labels.extend(
            self.pods
                .requirements()
                .iter()
                .filter_map(|requirement| Some((format!("{POD_PREFIX}{}", requirement.key), single(requirement)?.to_owned()))),
        );
        labels
    }
}

fn label(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The values that the requirements on one label name, sorted; none where they name none but describe them.
fn named(requirements: &[Requirement]) -> Option<Vec<&str>> {
    let names = requirements.iter().find(|requirement| requirement.operator == Operator::In)?;
    let meets_all = |name: &&str| requirements.iter().all(|requirement| requirement.matches(Some(name)));
    Some(names.values.iter().map(String::as_str).filter(meets_all).collect())
}

/// The one value that the requirement asks for.
pub(crate) fn single(requirement: &Requirement) -> Option<&str> {
    let mut values = requirement.values.iter();
    match (requirement.operator, values.next(), values.next()) {
        (Operator::In, Some(value), None) => Some(value),
        _ => None,
    }
}

/// The requirement on the pod's own label, whose key must be one without the prefix too.
fn pod_requirement(label: &str, requirement: &Requirement) -> Result<Requirement, ApiError> {
    let own = Requirement { key: label.to_owned(), ..requirement.clone() };
    Selector::parse(&Requirement { operator: Operator::Exists, ..own.clone() }.to_string())?;
    Ok(own)
}

/// What of another namespace than `namespace` the requirement asks for. One that no namespace can meet asks for nothing.
fn other_namespace(requirement: &Requirement, namespace: &str) -> Option<String> {
    match requirement.operator {
        Operator::In => {
            let other = requirement.values.iter().find(|value| *value != namespace)?;
            Some(format!("pools of namespace {other:?}"))
        }
        Operator::NotIn if requirement.values.contains(namespace) => {
            Some(format!("pools with {:?}", shown(&requirement.to_string())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;
    use tokio::time::Instant;
    use weir_datastore::{PoolSpec, datastore};

    use super::*;

    fn there() -> Datastore {
        let pools = ["default/7", "default/a", "default/b", "other/a", "other/c"].iter().filter_map(|id| id.split_once('/'));
        let (datastore, mut topology) = datastore();
        topology
            .replace_all(pools.map(|(namespace, name)| PoolSpec::empty(PoolId::new(namespace, name))).collect(), Instant::now());
        datastore
    }

    /// The pools that a selector in namespace `default` chooses.
    fn choose(selector: &str, config: &AdapterConfig) -> Result<Vec<PoolId>, ApiError> {
        let query = Query::read(selector)?;
        let datastore = there();
        let namespaces = match query.reach("m", "default", config)? {
            Reach::Own => vec!["default".into()],
            Reach::Named(names) => names,
            Reach::Open(_) => query.matching_namespaces(&datastore),
        };
        let there = datastore.pool_ids();
        let candidates = query.candidates(&datastore, &namespaces, config);
        Ok(candidates.into_iter().filter(|pool| there.contains(pool)).collect())
    }

    /// The same in words, or the status of the error.
    fn chosen(selector: &str, config: &AdapterConfig) -> Result<String, StatusCode> {
        let chosen = choose(selector, config).map_err(|error| error.code())?;
        Ok(chosen.iter().map(PoolId::to_string).collect::<Vec<_>>().join(" "))
    }

    fn assert_chosen(config: &AdapterConfig, cases: &[(&str, Result<&str, StatusCode>)]) {
        for (selector, expected) in cases {
            assert_eq!(chosen(selector, config), expected.map(str::to_owned), "{selector}");
        }
    }

    #[test]
    fn every_operator_chooses_by_name_in_every_dialect() {
        for key in ["name", "pool", "inference_pool", "metric.labels.name", "metric.labels.pool", "metric.labels.inference_pool"] {
            for (condition, expected) in [
                ("KEY=a", "default/a"),
                ("KEY==a", "default/a"),
                ("KEY!=a", "default/7 default/b"),
                ("KEY in (a,c)", "default/a"),
                ("KEY notin (a,b)", "default/7"),
                ("KEY", "default/7 default/a default/b"),
                ("KEY>6", "default/7"),
                ("KEY<7", ""),
                ("KEY=", ""),
                ("KEY=a,KEY=b", ""),
                ("KEY!=a,KEY!=b", "default/7"),
            ] {
                let selector = condition.replace("KEY", key);
                assert_eq!(chosen(&selector, &AdapterConfig::default()), Ok(expected.to_owned()), "{selector}");
            }
            let absent = if is_gke_key(key) { Err(StatusCode::BAD_REQUEST) } else { Ok(String::new()) };
            assert_eq!(chosen(&format!("!{key}"), &AdapterConfig::default()), absent, "!{key}");
        }
        assert_chosen(&AdapterConfig::default(), &[("", Ok("default/7 default/a default/b"))]);
    }

    #[test]
    fn another_namespace_is_forbidden() {
        let forbidden = Err(StatusCode::FORBIDDEN);
        for key in ["namespace", "metric.labels.namespace", "resource.labels.namespace", "resource.labels.namespace_name"] {
            let all = Ok("default/7 default/a default/b");
            for (condition, expected) in [
                ("KEY=default", all),
                ("KEY in (default)", all),
                ("KEY!=other", all),
                ("KEY notin (other,third)", all),
                ("KEY", all),
                ("!KEY", if is_gke_key(key) { Err(StatusCode::BAD_REQUEST) } else { Ok("") }),
                ("KEY>1", Ok("")),
                ("KEY=other", forbidden),
                ("KEY=", forbidden),
                ("KEY in (default,other)", forbidden),
                ("KEY!=default", forbidden),
                ("KEY notin (default)", forbidden),
                ("KEY=default,name=a", Ok("default/a")),
                ("name=a,KEY=other", forbidden),
            ] {
                assert_chosen(&AdapterConfig::default(), &[(&condition.replace("KEY", key), expected)]);
            }
        }
    }

    #[test]
    fn another_namespace_may_be_allowed() {
        let config = AdapterConfig { allow_cross_namespace: true, ..AdapterConfig::default() };
        let everything = Ok("default/7 default/a default/b other/a other/c");
        assert_chosen(
            &config,
            &[
                ("", Ok("default/7 default/a default/b")),
                ("name=a", Ok("default/a")),
                ("namespace=other", Ok("other/a other/c")),
                ("resource.labels.namespace=other,name=a", Ok("other/a")),
                ("namespace!=default", Ok("other/a other/c")),
                ("namespace", everything),
                ("namespace in (default,other)", everything),
                ("!namespace", Ok("")),
            ],
        );
    }

    #[test]
    fn constants_match_what_is_configured_or_anything() {
        let all = Ok("default/7 default/a default/b");
        let keys = ["cluster", "cluster_name", "location", "project_id"].map(|key| format!("resource.labels.{key}"));
        for key in keys.iter().map(String::as_str).chain(["resource.type"]) {
            let with = |operator: &str| format!("{key}{operator}");
            for operator in ["=x", "!=x", "", "=prometheus_target", " in (x,y)"] {
                assert_chosen(&AdapterConfig::default(), &[(&with(operator), all)]);
            }
            let configured = AdapterConfig {
                resource: ResourceLabels {
                    cluster: Some("x".into()),
                    location: Some("x".into()),
                    project_id: Some("x".into()),
                    resource_type: Some("x".into()),
                },
                ..AdapterConfig::default()
            };
            for (operator, expected) in [("=x", all), ("!=y", all), (" in (x,y)", all), ("", all), ("=y", Ok("")), ("!=x", Ok(""))]
            {
                assert_chosen(&configured, &[(&with(operator), expected)]);
            }
            assert_chosen(&configured, &[(&format!("!{key}"), Err(StatusCode::BAD_REQUEST))]);
        }
    }

    #[test]
    fn pod_labels_are_passed_on_without_the_prefix() {
        let pods = |selector| Query::read(selector).map(|query| query.pods.to_string()).map_err(|error| error.code());
        for (selector, expected) in [
            ("name=a", ""),
            ("pod.app=x", "app=x"),
            ("pod.app.kubernetes.io/name in (x,y),name=a,!pod.old", "app.kubernetes.io/name in (x,y),!old"),
            ("pod.pod.x!=1", "pod.x!=1"),
            ("pod.gpu", "gpu"),
            ("pod.gpu>3", "gpu>3"),
            ("pod.gpu notin (a,b)", "gpu notin (a,b)"),
            ("pod.in=x", "in=x"),
        ] {
            assert_eq!(pods(selector), Ok(expected.to_owned()), "{selector}");
        }
        // What no pod can have as a label.
        for selector in ["pod.-x=1", "!pod._x", "pod=x", "podx=1"] {
            assert_eq!(pods(selector), Err(StatusCode::BAD_REQUEST), "{selector}");
        }
    }

    #[test]
    fn a_value_is_labelled_in_the_words_of_its_query() {
        let config = AdapterConfig {
            resource: ResourceLabels { cluster: Some("prod".into()), ..ResourceLabels::default() },
            ..AdapterConfig::default()
        };
        let selector = "metric.labels.name=a,resource.labels.namespace=default,resource.labels.cluster!=x,resource.type=t,\
                        pod.gpu=h100,pod.app in (x,y),reducer=REDUCE_NONE";
        let labels = Query::read(selector).unwrap().labels(&PoolId::new("default", "a"), false, &config);
        assert_eq!(
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            [
                "metric.labels.name=a",
                "name=a",
                "namespace=default",
                "pod.gpu=h100",
                "resource.labels.cluster=prod",
                "resource.labels.namespace=default",
                "resource.type=t"
            ]
        );
        // A metric named in the dialect has the dialect's labels, whatever was asked.
        let plain = Query::read("name=a").unwrap();
        assert_eq!(plain.labels(&PoolId::new("default", "a"), false, &config).len(), 2);
        let keys = plain.labels(&PoolId::new("default", "a"), true, &config).into_keys().collect::<Vec<_>>();
        assert_eq!(keys, ["metric.labels.name", "name", "namespace", "resource.labels.cluster", "resource.labels.namespace"]);
    }

    #[test]
    fn pools_that_are_named_are_looked_up_without_going_through_all() {
        let (nobody, _) = datastore();
        let candidates = |selector: &str| {
            let candidates = Query::read(selector).unwrap().candidates(&nobody, &["default".into()], &AdapterConfig::default());
            candidates.iter().map(PoolId::to_string).collect::<Vec<_>>()
        };
        assert_eq!(candidates("name=a"), ["default/a"]);
        assert_eq!(candidates("name in (b,a,c),name!=c,metric.labels.name in (a,b)"), ["default/a", "default/b"]);
        assert_eq!(candidates("name=a,name=b"), Vec::<String>::new());
        // Not named, and there is none.
        assert_eq!(candidates("name!=a"), Vec::<String>::new());
        assert_eq!(candidates(""), Vec::<String>::new());
        let many = (0..65).map(|number| format!("p{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(candidates(&format!("name in ({many})")), Vec::<String>::new());
    }

    #[test]
    fn namespaces_that_are_named_are_counted() {
        let config = AdapterConfig { allow_cross_namespace: true, ..AdapterConfig::default() };
        let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>().join(",");
        let reach = |selector: &str| Query::read(selector).unwrap().reach("m", "default", &config);
        assert_eq!(reach("namespace in (b,a),namespace!=b").unwrap(), Reach::Named(vec!["a".into()]));
        assert_eq!(reach("namespace!=b,namespace").unwrap(), Reach::Open("namespace!=b,namespace".into()));
        assert_eq!(reach("name=a").unwrap(), Reach::Own);
        assert!(reach(&format!("namespace in ({})", names(32))).is_ok());
        assert!(matches!(reach(&format!("namespace in ({})", names(33))), Err(ApiError::TooManyNamespaces { .. })));
    }

    #[test]
    fn a_selector_has_a_longest_length() {
        let names = |count: usize| format!("name in ({})", vec!["x".repeat(62); count].join(","));
        assert!(Query::read(&names(200)).is_ok());
        assert!(matches!(Query::read(&names(300)), Err(ApiError::SelectorTooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_selector_is_an_answer(
            words in proptest::collection::vec("(name|namespace|pod\\.|pod\\.x|reducer|resource.type|REDUCE_SUM|in|notin|=|==|!=|!|,|\\(|\\)|<|>|7| |é|a/b|\u{0})", 0..12),
            allow_cross_namespace: bool,
        ) {
            let config = AdapterConfig { allow_cross_namespace, ..AdapterConfig::default() };
            if let Ok(chosen) = choose(&words.concat(), &config) {
                prop_assert!(allow_cross_namespace || chosen.iter().all(|pool| &*pool.namespace == "default"));
                prop_assert!(chosen.is_sorted());
            }
        }
    }
}
