//! What a label selector means here: which pools, which of their pods, and how several values become one.

use std::collections::BTreeMap;

use weir_datastore::PoolId;
use weir_datastore::selector::{Operator, Requirement, Selector};

use crate::config::{AdapterConfig, ResourceLabels};
use crate::error::{ApiError, shown};

/// Longest selector in bytes: some two hundred pool names. What is longer is no selector that a person wrote.
const LONGEST_SELECTOR: usize = 16 * 1024;

/// Before the key of a pod's label.
const POD_PREFIX: &str = "pod.";

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
}

/// Which of the constants.
type Constant = fn(&ResourceLabels) -> &Option<String>;

/// How the values of several pools become one (Cloud Monitoring's names).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reducer {
    /// They stay several.
    None,
    Mean,
    Min,
    Max,
    Sum,
    /// How many there are.
    Count,
}

impl Reducer {
    const ALL: [(&str, Self); 6] = [
        ("REDUCE_NONE", Self::None),
        ("REDUCE_MEAN", Self::Mean),
        ("REDUCE_MIN", Self::Min),
        ("REDUCE_MAX", Self::Max),
        ("REDUCE_SUM", Self::Sum),
        ("REDUCE_COUNT", Self::Count),
    ];

    /// Those of Cloud Monitoring that say nothing of pools.
    const NOT_IMPLEMENTED: [&str; 8] = [
        "REDUCE_STDDEV",
        "REDUCE_COUNT_TRUE",
        "REDUCE_COUNT_FALSE",
        "REDUCE_FRACTION_TRUE",
        "REDUCE_PERCENTILE_99",
        "REDUCE_PERCENTILE_95",
        "REDUCE_PERCENTILE_50",
        "REDUCE_PERCENTILE_05",
    ];

    fn read(requirement: &Requirement) -> Result<Self, ApiError> {
        let known = || Self::ALL.map(|(name, _)| name).join(", ");
        let unclear = || ApiError::Reducer { asked: shown(&requirement.to_string()), known: known() };
        let name = single(requirement).ok_or_else(unclear)?;
        match Self::ALL.iter().find(|(known, _)| *known == name) {
            Some((_, reducer)) => Ok(*reducer),
            None if Self::NOT_IMPLEMENTED.contains(&name) => {
                Err(ApiError::ReducerNotImplemented { reducer: name.to_owned(), known: known() })
            }
            None => Err(unclear()),
        }
    }
}

/// A selector, taken apart.
pub(crate) struct Query {
    text: String,
    names: Vec<Requirement>,
    namespaces: Vec<Requirement>,
    constants: Vec<(Constant, Requirement)>,
    /// Which endpoints of the pools count, by the labels of their pods.
    pub(crate) pods: Selector,
    /// None where the selector has no reducer.
    pub(crate) reducer: Option<Reducer>,
}

/// What a query chooses among the pools there are.
#[derive(Debug)]
pub(crate) struct Choice {
    /// The pools that match.
    pub(crate) chosen: Vec<PoolId>,
    /// The pools of the namespaces that were asked for: all that an error may name.
    pub(crate) in_reach: Vec<PoolId>,
}

impl Query {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`ApiError`] with 400 where the text is no selector or has a key that is not allowed, 501 for a reducer that is not
    /// implemented.
    pub(crate) fn read(text: &str) -> Result<Self, ApiError> {
        if text.len() > LONGEST_SELECTOR {
            return Err(ApiError::SelectorTooLong { length: text.len(), most: LONGEST_SELECTOR });
        }
        let selector = Selector::parse(text)?;
        let (mut names, mut namespaces, mut constants, mut pods) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut reducer = None;
        for requirement in selector.requirements().iter().cloned() {
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
                None => {
                    let allowed = KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ");
                    return Err(ApiError::LabelNotAllowed { key: requirement.key, allowed });
                }
            }
        }
        Ok(Self { text: shown(text.trim()), names, namespaces, constants, pods: Selector::new(pods), reducer })
    }

    /// The query as errors name it.
    pub(crate) fn asked(&self, namespace: &str) -> String {
        match &*self.text {
            "" => format!("a request without selector in namespace {}", shown(namespace)),
            text => format!("the selector {text:?} in namespace {}", shown(namespace)),
        }
    }

    /// Whether the pools of other namespaces than the request's are in reach.
    pub(crate) fn crosses_namespaces(&self, config: &AdapterConfig) -> bool {
        config.allow_cross_namespace && !self.namespaces.is_empty()
    }

    /// Which of the pools `there` are chosen, for a request in `namespace` that was authorised for it.
    ///
    /// # Errors
    /// [`ApiError::OtherNamespace`] where the selector names another namespace and must not.
    pub(crate) fn choose(
        &self,
        there: Vec<PoolId>,
        metric: &str,
        namespace: &str,
        config: &AdapterConfig,
    ) -> Result<Choice, ApiError> {
        let crosses = self.crosses_namespaces(config);
        if !crosses && let Some(asked) = self.namespaces.iter().find_map(|requirement| other_namespace(requirement, namespace)) {
            return Err(ApiError::OtherNamespace { metric: shown(metric), asked, namespace: shown(namespace) });
        }
        let in_namespaces = |pool: &PoolId| self.namespaces.iter().all(|requirement| requirement.matches(Some(&pool.namespace)));
        let of_constants = self.mismatch(config).is_none();
        let is_chosen = |pool: &&PoolId| {
            of_constants && in_namespaces(pool) && self.names.iter().all(|requirement| requirement.matches(Some(&pool.name)))
        };
        let in_reach: Vec<_> =
            there.into_iter().filter(|pool| if crosses { in_namespaces(pool) } else { &*pool.namespace == namespace }).collect();
        let chosen = in_reach.iter().filter(is_chosen).cloned().collect();
        Ok(Choice { chosen, in_reach })
    }

    /// A requirement on a configured constant that does not hold, and the constant.
    pub(crate) fn mismatch<'a>(&'a self, config: &'a AdapterConfig) -> Option<(&'a Requirement, &'a str)> {
        self.constants.iter().find_map(|(constant, requirement)| {
            let value = constant(&config.resource).as_deref()?;
            (!requirement.matches(Some(value))).then_some((requirement, value))
        })
    }

    /// The labels of a value of `pool`: the plain ones, and those that the query used.
    pub(crate) fn labels(&self, pool: &PoolId, config: &AdapterConfig) -> BTreeMap<String, String> {
        let keys = |requirements: &'_ [Requirement], value: &str| -> Vec<_> {
            requirements.iter().map(|requirement| (requirement.key.clone(), value.to_owned())).collect()
        };
        let constants = self.constants.iter().filter_map(|(constant, requirement)| {
            let value = constant(&config.resource).as_deref().or_else(|| single(requirement))?;
            Some((requirement.key.clone(), value.to_owned()))
        });
        let pods = self.pods.requirements().iter().filter_map(|requirement| {
            let value = single(requirement)?;
            Some((format!("{POD_PREFIX}{}", requirement.key), value.to_owned()))
        });
        [("name".to_owned(), pool.name.to_string()), ("namespace".to_owned(), pool.namespace.to_string())]
            .into_iter()
            .chain(keys(&self.names, &pool.name))
            .chain(keys(&self.namespaces, &pool.namespace))
            .chain(constants)
            .chain(pods)
            .collect()
    }
}

/// The one value that the requirement asks for.
fn single(requirement: &Requirement) -> Option<&str> {
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

    use super::*;

    fn there() -> Vec<PoolId> {
        ["default/7", "default/a", "default/b", "other/a", "other/c"]
            .iter()
            .filter_map(|id| id.split_once('/'))
            .map(|(namespace, name)| PoolId::new(namespace, name))
            .collect()
    }

    /// The pools that a selector in namespace `default` chooses, or the status of its error.
    fn chosen(selector: &str, config: &AdapterConfig) -> Result<String, StatusCode> {
        let choice = Query::read(selector).and_then(|query| query.choose(there(), "m", "default", config));
        let choice = choice.map_err(|error| error.code())?;
        Ok(choice.chosen.iter().map(PoolId::to_string).collect::<Vec<_>>().join(" "))
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
                ("!KEY", ""),
                ("KEY>6", "default/7"),
                ("KEY<7", ""),
                ("KEY=", ""),
                ("KEY=a,KEY=b", ""),
                ("KEY!=a,KEY!=b", "default/7"),
            ] {
                let selector = condition.replace("KEY", key);
                assert_eq!(chosen(&selector, &AdapterConfig::default()), Ok(expected.to_owned()), "{selector}");
            }
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
                ("!KEY", Ok("")),
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
            assert_chosen(&configured, &[(&format!("!{key}"), Ok(""))]);
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
    fn a_reducer_is_chosen_once_by_name() {
        let reducer = |selector: &str| Query::read(selector).map(|query| query.reducer).map_err(|error| error.code());
        assert_eq!(reducer(""), Ok(None));
        for (name, expected) in Reducer::ALL {
            assert_eq!(reducer(&format!("reducer={name}")), Ok(Some(expected)), "{name}");
            assert_eq!(reducer(&format!("reducer in ({name}),reducer=={name}")), Ok(Some(expected)), "{name}");
        }
        for name in Reducer::NOT_IMPLEMENTED {
            assert_eq!(reducer(&format!("reducer={name}")), Err(StatusCode::NOT_IMPLEMENTED), "{name}");
        }
        for selector in [
            "reducer=REDUCE_FOO",
            "reducer=reduce_sum",
            "reducer!=REDUCE_SUM",
            "reducer",
            "!reducer",
            "reducer in (REDUCE_MAX,REDUCE_MIN)",
            "reducer=REDUCE_MAX,reducer=REDUCE_MIN",
        ] {
            assert_eq!(reducer(selector), Err(StatusCode::BAD_REQUEST), "{selector}");
        }
    }

    #[test]
    fn a_value_is_labelled_in_the_words_of_its_query() {
        let config = AdapterConfig {
            resource: ResourceLabels { cluster: Some("prod".into()), ..ResourceLabels::default() },
            ..AdapterConfig::default()
        };
        let selector = "metric.labels.name=a,resource.labels.namespace=default,resource.labels.cluster!=x,resource.type=t,\
                        !resource.labels.location,pod.gpu=h100,pod.app in (x,y),reducer=REDUCE_NONE";
        let labels = Query::read(selector).unwrap().labels(&PoolId::new("default", "a"), &config);
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            labels,
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
            let choice = Query::read(&words.concat()).and_then(|query| query.choose(there(), "m", "default", &config));
            if let Ok(choice) = choice {
                prop_assert!(choice.chosen.iter().all(|pool| choice.in_reach.contains(pool)));
                prop_assert!(allow_cross_namespace || choice.in_reach.iter().all(|pool| &*pool.namespace == "default"));
            }
        }
    }
}
