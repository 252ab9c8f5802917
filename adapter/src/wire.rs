//! Lists of values and failures as JSON, field for field as Kubernetes' own servers write them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use weir_datastore::selector::{Operator, Selector};

use crate::config::Wall;
use crate::error::ApiError;
use crate::groups::{Described, GroupVersion};
use crate::quantity::Quantity;
use crate::{CUSTOM_V1BETA1, EXTERNAL};

/// The values of an answer, in no version yet.
#[derive(Debug)]
pub(crate) struct ValueList {
    pub(crate) version: &'static GroupVersion,
    /// The metric as the caller names it.
    pub(crate) metric: String,
    /// The metric's selector, where it is a custom one and has one.
    pub(crate) selector: Option<LabelSelector>,
    /// One per series: of external metrics the autoscaler adds them up.
    pub(crate) items: Vec<Value>,
    /// Something the caller should know although there is an answer.
    pub(crate) warning: Option<String>,
}

/// One value. It is no average over time, so the optional window is left out.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) about: About,
    pub(crate) timestamp: Wall,
    pub(crate) age: Duration,
    pub(crate) value: Quantity,
}

/// What a value is of.
#[derive(Debug)]
pub(crate) enum About {
    /// A series of an external metric.
    Series(BTreeMap<String, String>),
    /// An object.
    Object(Object),
}

/// An object of the cluster, as an `ObjectReference`.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) described: Described,
    /// The namespace it is in, or which it is.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Object {
    /// The namespace that the object is in.
    pub(crate) fn within(&self) -> Option<&str> {
        self.described.is_namespaced().then_some(&*self.namespace)
    }
}

/// `metav1.LabelSelector`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) match_expressions: Vec<MatchExpression>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct MatchExpression {
    pub(crate) key: String,
    pub(crate) operator: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<String>,
}

impl LabelSelector {
    /// `selector` as an object; none where it selects everything.
    ///
    /// # Errors
    /// [`ApiError::NotALabelSelector`] for `<` and `>`, which the object has no form for.
    pub(crate) fn of(selector: &Selector) -> Result<Option<Self>, ApiError> {
        if selector.is_everything() {
            return Ok(None);
        }
        let mut object = Self::default();
        for requirement in selector.requirements() {
            let unknown =
                |operator| ApiError::NotALabelSelector { operator, requirement: crate::error::shown(&requirement.to_string()) };
            let operator = match (requirement.operator, requirement.values.first()) {
                (Operator::In, Some(value))
                    if requirement.values.len() == 1 && !object.match_labels.contains_key(&requirement.key) =>
                {
                    object.match_labels.insert(requirement.key.clone(), value.clone());
                    continue;
                }
                (Operator::In, _) => "In",
                (Operator::NotIn, _) => "NotIn",
                (Operator::Exists, _) => "Exists",
                (Operator::DoesNotExist, _) => "DoesNotExist",
                (Operator::GreaterThan, _) => return Err(unknown("gt")),
                (Operator::LessThan, _) => return Err(unknown("lt")),
            };
            let values = requirement.values.iter().cloned().collect();
            object.match_expressions.push(MatchExpression { key: requirement.key.clone(), operator, values });
        }
        object.match_expressions.sort();
        Ok(Some(object))
    }
}

impl Serialize for ValueList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let version = self.version;
        ListJson { kind: version.list_kind, api_version: version.name, metadata: Empty {}, items: ItemsJson(self) }
            .serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListJson<'list> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    items: ItemsJson<'list>,
}

struct ItemsJson<'list>(&'list ValueList);

impl Serialize for ItemsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let list = self.0;
        let mut items = serializer.serialize_seq(Some(list.items.len()))?;
        for Value { about, timestamp, value, .. } in &list.items {
            let (timestamp, value) = (*timestamp, *value);
            match about {
                About::Series(labels) => {
                    items.serialize_element(&ExternalJson {
                        metric_name: &list.metric,
                        metric_labels: labels,
                        timestamp,
                        value,
                    })?;
                }
                About::Object(object) if *list.version == CUSTOM_V1BETA1 => items.serialize_element(&V1Beta1Json {
                    described_object: ObjectJson::of(object),
                    metric_name: &list.metric,
                    timestamp,
                    value,
                    selector: list.selector.as_ref(),
                })?,
                About::Object(object) => items.serialize_element(&V1Beta2Json {
                    described_object: ObjectJson::of(object),
                    metric: MetricJson { name: &list.metric, selector: list.selector.as_ref() },
                    timestamp,
                    value,
                })?,
            }
        }
        items.end()
    }
}

/// `external.metrics.k8s.io/v1beta1 ExternalMetricValue`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalJson<'list> {
    metric_name: &'list str,
    metric_labels: &'list BTreeMap<String, String>,
    timestamp: Wall,
    value: Quantity,
}

/// `custom.metrics.k8s.io/v1beta1 MetricValue`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta1Json<'list> {
    described_object: ObjectJson<'list>,
    metric_name: &'list str,
    timestamp: Wall,
    value: Quantity,
    selector: Option<&'list LabelSelector>,
}

/// `custom.metrics.k8s.io/v1beta2 MetricValue`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta2Json<'list> {
    described_object: ObjectJson<'list>,
    metric: MetricJson<'list>,
    timestamp: Wall,
    value: Quantity,
}

#[derive(Serialize)]
struct MetricJson<'list> {
    name: &'list str,
    selector: Option<&'list LabelSelector>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectJson<'list> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'list str>,
    name: &'list str,
    api_version: &'static str,
}

impl<'list> ObjectJson<'list> {
    fn of(object: &'list Object) -> Self {
        Self {
            kind: object.described.kind.name(),
            namespace: object.within(),
            name: &object.name,
            api_version: object.described.api_version,
        }
    }
}

/// `metav1.Status` of a failure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Details>,
    pub(crate) code: u16,
}

/// What a failure is about.
#[derive(Debug, Serialize)]
pub(crate) struct Details {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) group: &'static str,
    pub(crate) kind: String,
}

/// `metadata` of what has none.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Empty {}

impl Status {
    pub(crate) fn failure(code: u16, reason: &'static str, message: String, details: Option<Details>) -> Self {
        Self { kind: "Status", api_version: "v1", metadata: Empty {}, status: "Failure", message, reason, details, code }
    }
}

impl ValueList {
    /// A list of external values.
    pub(crate) fn external(metric: String, items: Vec<Value>) -> Self {
        Self { version: &EXTERNAL, metric, selector: None, items, warning: None }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::{Clock, Moment};
    use crate::groups::{NAMESPACES, PODS, POOLS};
    use crate::{CUSTOM_V1BETA2, GroupVersion};

    /// 2026-01-01T00:00:00Z.
    pub(crate) fn new_year() -> Moment {
        Clock { now_instant: Instant::now, now_wall: || jiff::Timestamp::constant(1_767_225_600, 0) }.now()
    }

    fn value(about: About, value: f64) -> Value {
        let now = new_year();
        Value { about, timestamp: now.wall(now.instant), age: Duration::ZERO, value: Quantity::from_f64(value).unwrap() }
    }

    /// The list of the reference vector: metric `kv`, labels `name=pool`, 850m.
    pub(crate) fn external() -> ValueList {
        let labels = BTreeMap::from([("name".into(), "pool".into())]);
        ValueList::external("kv".into(), vec![value(About::Series(labels), 0.85)])
    }

    /// A pool, a pod and a namespace.
    pub(crate) fn custom(version: &'static GroupVersion, selector: &str) -> ValueList {
        let object = |described, name: &str| About::Object(Object { described, namespace: "ns".into(), name: name.into() });
        let items = vec![value(object(POOLS, "p"), 12.0), value(object(PODS, "p-0"), 0.0), value(object(NAMESPACES, "ns"), 1.5)];
        let selector = LabelSelector::of(&Selector::parse(selector).unwrap()).unwrap();
        ValueList { version, metric: "kv".into(), selector, items, warning: None }
    }

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn external_values_are_written_as_kubernetes_writes_them() {
        assert_eq!(
            json(&external()),
            r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":"kv","metricLabels":{"name":"pool"},"timestamp":"2026-01-01T00:00:00Z","value":"850m"}]}"#
        );
        assert_eq!(
            json(&ValueList::external("kv".into(), Vec::new())),
            r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[]}"#
        );
    }

    #[test]
    fn custom_values_are_written_as_each_version_writes_them() {
        let objects = [
            r#"{"kind":"InferencePool","namespace":"ns","name":"p","apiVersion":"inference.networking.k8s.io/v1"}"#,
            r#"{"kind":"Pod","namespace":"ns","name":"p-0","apiVersion":"v1"}"#,
            r#"{"kind":"Namespace","name":"ns","apiVersion":"v1"}"#,
        ];
        let list = |version: &str, items: Vec<String>| {
            format!(
                r#"{{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/{version}","metadata":{{}},"items":[{}]}}"#,
                items.join(",")
            )
        };
        let each = |write: &dyn Fn(&str, &str) -> String| {
            objects.iter().zip(["12", "0", "1500m"]).map(|(object, value)| write(object, value)).collect::<Vec<_>>()
        };
        let old = |object: &str, value: &str| {
            format!(
                r#"{{"describedObject":{object},"metricName":"kv","timestamp":"2026-01-01T00:00:00Z","value":"{value}","selector":null}}"#
            )
        };
        assert_eq!(json(&custom(&CUSTOM_V1BETA1, "")), list("v1beta1", each(&old)));
        let new = |object: &str, value: &str| {
            format!(
                r#"{{"describedObject":{object},"metric":{{"name":"kv","selector":{{"matchLabels":{{"name":"p"}},"matchExpressions":[{{"key":"a","operator":"NotIn","values":["x"]}},{{"key":"b","operator":"Exists"}},{{"key":"c","operator":"In","values":["x","y"]}}]}}}},"timestamp":"2026-01-01T00:00:00Z","value":"{value}"}}"#
            )
        };
        assert_eq!(json(&custom(&CUSTOM_V1BETA2, "name=p,c in (y,x),a!=x,b")), list("v1beta2", each(&new)));
    }

    #[test]
    fn what_an_object_has_no_form_for_is_refused() {
        for (selector, operator) in [("a>1", "gt"), ("b=1,a<1", "lt")] {
            let error = LabelSelector::of(&Selector::parse(selector).unwrap()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("\"{operator}\" isn't supported in label selectors")), "{error}");
        }
    }

    #[test]
    fn a_failure_is_a_status() {
        assert_eq!(
            json(&Status::failure(404, "NotFound", "no \"x\"".into(), None)),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no \"x\"","reason":"NotFound","code":404}"#
        );
        let details = Details { group: "g", kind: "m".into() };
        assert_eq!(
            json(&Status::failure(403, "Forbidden", String::new(), Some(details))),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"","reason":"Forbidden","details":{"group":"g","kind":"m"},"code":403}"#
        );
    }
}
