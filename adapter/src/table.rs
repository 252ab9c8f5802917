//! A list of values as a `Table`, which is what `kubectl get` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::groups::DescribedKind;
use crate::wire::{About, Empty, Value, ValueList};

/// `meta.k8s.io Table`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table<'list> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    column_definitions: [Column; 5],
    rows: Vec<Row<'list>>,
}

#[derive(Clone, Copy, Serialize)]
struct Column {
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: u8,
}

#[derive(Serialize)]
struct Row<'list> {
    cells: [Cow<'list, str>; 5],
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Partial<'list>>,
}

/// `PartialObjectMetadata` of what a row is about.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Partial<'list> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'list>,
}

#[derive(Serialize)]
struct Metadata<'list> {
    name: &'list str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'list str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'list BTreeMap<String, String>>,
}

impl<'list> Table<'list> {
    /// `list` in this version of the Table, whose rows go without objects where nobody wants them.
    pub(crate) fn of(list: &'list ValueList, api_version: &'static str, without_objects: bool) -> Self {
        let column = |name, format, description, priority| Column { name, r#type: "string", format, description, priority };
        let first = match list.items.first().map(|item| &item.about) {
            Some(About::Object(object)) => match object.described.kind {
                DescribedKind::InferencePool => "Pool",
                DescribedKind::Pod => "Pod",
                DescribedKind::Namespace => "Name",
            },
            Some(About::Series(_)) | None => "Pool",
        };
        let column_definitions = [
            column(first, "name", "What the value is of; of what was made of several pools, none.", 0),
            column("Metric", "", "The metric as it was asked for.", 0),
            column("Value", "", "A Kubernetes quantity: 850m is 0.85.", 0),
            column("Age", "", "How old the oldest page is that the value is made of.", 0),
            column("Namespace", "", "Where it is.", 1),
        ];
        let rows = list.items.iter().map(|item| Row::of(list, item, api_version, without_objects)).collect();
        Self { kind: "Table", api_version, metadata: Empty {}, column_definitions, rows }
    }
}

impl<'list> Row<'list> {
    fn of(list: &'list ValueList, item: &'list Value, api_version: &'static str, without_objects: bool) -> Self {
        let (name, namespace, labels) = match &item.about {
            About::Series(labels) => {
                let label = |key| labels.get(key).map(String::as_str);
                (label("name").unwrap_or_default(), label("namespace"), Some(labels))
            }
            About::Object(object) => (&*object.name, object.within(), None),
        };
        let age = format!("{}s", item.age.as_secs());
        let cells = [
            Cow::Borrowed(name),
            Cow::Borrowed(&*list.metric),
            Cow::Owned(item.value.to_string()),
            Cow::Owned(age),
            Cow::Borrowed(namespace.unwrap_or_default()),
        ];
        let partial = || Partial { kind: "PartialObjectMetadata", api_version, metadata: Metadata { name, namespace, labels } };
        Self { cells, object: (!without_objects).then(partial) }
    }
}
