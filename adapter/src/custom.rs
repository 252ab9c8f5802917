//! Custom metrics: from a question about objects (pools, pods, a namespace) to its values, or to the truth about why there are none.

use std::sync::Arc;

use weir_datastore::catalog::{Family, Kind};
use weir_datastore::selector::Selector;
use weir_datastore::{Measured, PoolId, PoolSnapshot};

use crate::error::{ApiError, listed, shown};
use crate::groups::{DescribedKind, GroupVersion};
use crate::path::Object;
use crate::pods::{self, PodFamily};
use crate::provider::{Source, pool_names};
use crate::query::{Query, read_selector};
use crate::reducer::{Reducer, reduced};
use crate::wire::{self, About, LabelSelector, ValueList};

/// A metric that describes objects.
#[derive(Clone, Copy)]
pub(crate) enum Metric {
    /// Of pools, and of the namespaces that they are in.
    Pool(&'static Family),
    /// Of pods.
    Pod(&'static PodFamily),
}

impl Metric {
    /// The name that discovery lists.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pool(family) => family.name,
            Self::Pod(family) => family.name,
        }
    }
}

/// A question about objects.
pub(crate) struct Asked<'request> {
    pub(crate) version: &'static GroupVersion,
    pub(crate) object: &'request Object,
    /// The metric as the caller names it.
    pub(crate) metric: &'request str,
    /// Which objects, where none is named.
    pub(crate) label_selector: &'request str,
    /// Which series.
    pub(crate) metric_label_selector: &'request str,
    /// The object's name, once more.
    pub(crate) field_selector: &'request str,
}

/// The metric of such an object that `metric` means, in any dialect.
pub(crate) fn metric(kind: DescribedKind, metric: &str) -> Option<Metric> {
    match kind {
        DescribedKind::InferencePool | DescribedKind::Namespace => crate::names::family(metric).map(Metric::Pool),
        DescribedKind::Pod => pods::family(metric).map(Metric::Pod),
    }
}

/// The values asked for: one per object that has one, and exactly one of an object that is named.
pub(crate) fn answer(source: Source<'_>, asked: &Asked<'_>, metric: Option<Metric>) -> Result<ValueList, ApiError> {
    let query = Query::read(asked.metric_label_selector)?;
    let selector = LabelSelector::of(&read_selector(asked.metric_label_selector)?)?;
    asked.check_field_selector()?;
    let metric = metric.ok_or_else(|| asked.unknown_metric())?;
    let question = Question { source, asked, query: &query };
    let (measured, warning) = match (metric, asked.object.described.kind) {
        (Metric::Pod(family), _) => question.pods(family)?,
        (Metric::Pool(family), DescribedKind::Namespace) => (vec![question.namespace(family)?], None),
        (Metric::Pool(family), _) => question.pools(family)?,
    };
    let written = |(name, measured): (Arc<str>, Measured)| {
        let object = wire::Object { described: asked.object.described, namespace: asked.object.namespace.as_str().into(), name };
        source.value(About::Object(object), measured, || (shown(asked.metric), asked.of()))
    };
    let items = measured.into_iter().map(written).collect::<Result<_, _>>()?;
    Ok(ValueList { version: asked.version, metric: asked.metric.to_owned(), selector, items, warning })
}

impl Asked<'_> {
    /// The objects, as errors name them.
    fn of(&self) -> String {
        let resource = self.object.described.resource;
        let mut of = match &self.object.name {
            Some(name) => format!("{resource} {}", shown(name)),
            None => resource.to_owned(),
        };
        for (selector, with) in [
            (self.object.name.is_none().then_some(self.label_selector), "selector"),
            (Some(self.metric_label_selector), "metric selector"),
        ] {
            if let Some(selector) = selector.map(str::trim).filter(|selector| !selector.is_empty()) {
                of.push_str(&format!(" with {with} {}", shown(selector)));
            }
        }
        of
    }

    /// A field selector may only say what the path says.
    fn check_field_selector(&self) -> Result<(), ApiError> {
        if self.field_selector.is_empty() {
            return Ok(());
        }
        let exact = self.field_selector.split(',').find_map(|term| {
            let (key, name) = term.split_once("==").or_else(|| term.split_once('='))?;
            (key == "metadata.name").then_some(name)
        });
        match exact == Some(self.object.name.as_deref().unwrap_or("*")) {
            true => Ok(()),
            false => Err(ApiError::FieldSelector),
        }
    }

    fn unknown_metric(&self) -> ApiError {
        let kind = self.object.described.kind;
        let near = match kind {
            DescribedKind::Pod => crate::names::near_among(self.metric, pods::POD_FAMILIES.iter().map(|family| family.name)),
            _ => crate::names::near(self.metric),
        };
        let near = match (near.as_slice(), kind) {
            (_, DescribedKind::Pod) if crate::names::family(self.metric).is_some() => {
                ", it is one of inferencepools.inference.networking.k8s.io".to_owned()
            }
            (_, DescribedKind::InferencePool | DescribedKind::Namespace) if pods::family(self.metric).is_some() => {
                ", it is one of pods".to_owned()
            }
            ([], _) => String::new(),
            (near, _) => format!(", near it are {}", near.join(", ")),
        };
        ApiError::UnknownMetric { metric: shown(self.metric), of: self.of(), near, list: self.version.name }
    }
}

/// A question with all that it takes to answer it.
struct Question<'question> {
    source: Source<'question>,
    asked: &'question Asked<'question>,
    query: &'question Query,
}

/// Objects by name with their values, and what to say of those without.
type Values = (Vec<(Arc<str>, Measured)>, Option<String>);

impl Question<'_> {
    fn own_namespace(&self) -> Arc<str> {
        self.asked.object.namespace.as_str().into()
    }

    /// A pool by its name, or all that the label selector matches. Of several, those that are not known are left out: nobody adds
    /// them up.
    fn pools(&self, family: &'static Family) -> Result<Values, ApiError> {
        let snapshots = match &self.asked.object.name {
            Some(name) => self.named_pool(name).into_iter().collect(),
            None => {
                let objects = read_selector(self.asked.label_selector)?;
                let known = |key: &str| matches!(key, "name" | "namespace");
                if let Some(requirement) = objects.requirements().iter().find(|requirement| !known(&requirement.key)) {
                    return Err(ApiError::ObjectLabelNotAllowed { key: shown(&requirement.key) });
                }
                let is_meant = |pool: &PoolSnapshot| {
                    objects.matches(|key| Some(if key == "name" { &*pool.id.name } else { &*pool.id.namespace }))
                };
                let mut snapshots = self.source.snapshots(self.query, &[self.own_namespace()]);
                snapshots.retain(is_meant);
                snapshots
            }
        };
        if snapshots.is_empty() {
            return Err(self.no_pool());
        }
        let total = snapshots.len();
        let mut known = Vec::with_capacity(total);
        let mut first_error = None;
        for snapshot in &snapshots {
            match self.source.measured(family, self.asked.metric, self.query, snapshot) {
                Ok(measured) => known.push((snapshot.id.name.clone(), self.counted(measured))),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) if known.is_empty() => Err(error),
            Some(_) => {
                let warning = format!("{} of {total} pools are left out: their value is not known", total - known.len());
                Ok((known, Some(warning)))
            }
            None => Ok((known, None)),
        }
    }

    /// Reduced, one series of an object stays what it is, but for their count.
    fn counted(&self, measured: Measured) -> Measured {
        match self.query.reducer {
            Some(Reducer::Count) => Measured { value: 1.0, ..measured },
            _ => measured,
        }
    }

    /// The pool of this name, if the metric's selector means it.
    fn named_pool(&self, name: &str) -> Option<PoolSnapshot> {
        let Self { source, query, .. } = self;
        let id = PoolId { namespace: self.own_namespace(), name: name.into() };
        let is_meant = query.names_pool(name) && query.is_in(&id.namespace) && query.mismatch(source.config).is_none();
        is_meant.then(|| source.datastore.snapshot(&id, &query.pods, source.now.instant)).flatten()
    }

    fn no_pool(&self) -> ApiError {
        let namespace = self.own_namespace();
        self.source.no_pool(self.asked.metric, self.query, self.asked.of(), std::slice::from_ref(&namespace), &namespace)
    }

    /// The namespace's one value: of its one pool, or of all by a reducer. Totals add up unless told otherwise.
    fn namespace(&self, family: &'static Family) -> Result<(Arc<str>, Measured), ApiError> {
        let namespace = self.own_namespace();
        let snapshots = self.source.snapshots(self.query, std::slice::from_ref(&namespace));
        if snapshots.is_empty() {
            return Err(self.no_pool());
        }
        let reducer = match (self.query.reducer.filter(|reducer| *reducer != Reducer::None), family.kind) {
            (Some(reducer), _) => reducer,
            (None, Kind::Total) => Reducer::Sum,
            (None, _) if snapshots.len() > 1 => {
                return Err(ApiError::NotOneValue {
                    metric: shown(self.asked.metric),
                    asked: self.asked.of(),
                    count: snapshots.len(),
                    pools: listed(&pool_names(snapshots.iter().map(|pool| &pool.id), false)),
                });
            }
            (None, _) => Reducer::Max,
        };
        let measure = |pool| self.source.measured(family, self.asked.metric, self.query, pool);
        let measured = snapshots.iter().map(measure).collect::<Result<Vec<_>, _>>()?;
        let measured = reduced(reducer, measured.into_iter()).ok_or_else(|| self.no_pool())?;
        Ok((namespace, measured))
    }

    /// A pod by its name, or all that the label selector matches; the metric's selector may choose among the pools that they serve.
    fn pods(&self, family: &'static PodFamily) -> Result<Values, ApiError> {
        let Self { source, asked, query } = self;
        if let Some((key, _)) = &query.model {
            return Err(ApiError::NotByModel { metric: shown(asked.metric), key: shown(key) });
        }
        let mut labels = query.pods.requirements().to_vec();
        if asked.object.name.is_none() {
            labels.extend_from_slice(read_selector(asked.label_selector)?.requirements());
        }
        let labels = Selector::new(labels);
        let candidates = query.candidates(source.datastore, &[self.own_namespace()], source.config);
        let snapshots: Vec<_> =
            candidates.iter().filter_map(|pool| source.datastore.snapshot(pool, &labels, source.now.instant)).collect();
        let pods = pods::measure(family, &snapshots, asked.object.name.as_deref());
        let total = pods.known.len() + pods.unknown;
        if total == 0 {
            return Err(self.no_pod(&snapshots));
        }
        if pods.known.is_empty() {
            let cause = match (pods.ready, pods.problem) {
                (0, _) => format!("none of {total} pods is ready"),
                (ready, None) => format!("none of {ready} ready pods has fresh metrics with it"),
                (ready, Some(problem)) => format!("none of {ready} ready pods has fresh metrics with it: {problem}"),
            };
            let since = source.since(pods.last_read);
            return Err(ApiError::Unknown { metric: shown(asked.metric), of: asked.of(), cause, since });
        }
        let unknown = pods.unknown;
        let warning =
            (unknown > 0).then(|| format!("{unknown} of {total} pods are left out: they are not ready or their metrics not fresh"));
        Ok((pods.known.into_iter().map(|(pod, measured)| (pod, self.counted(measured))).collect(), warning))
    }

    fn no_pod(&self, snapshots: &[PoolSnapshot]) -> ApiError {
        if snapshots.is_empty() {
            return self.no_pool();
        }
        let pools = listed(&pool_names(snapshots.iter().map(|pool| &pool.id), false));
        let there = format!("no such pod is an endpoint of a pool, the pools looked at are {pools}");
        ApiError::NoPool { metric: shown(self.asked.metric), asked: self.asked.of(), there }
    }
}
