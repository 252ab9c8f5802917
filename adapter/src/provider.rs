//! From a question about pools to its values, or to the truth about why there are none.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_datastore::catalog::{Family, Kind};
use weir_datastore::{Datastore, Measured, PoolId, PoolSnapshot, Unknown};
use weir_serving::Caller;

use crate::config::{AdapterConfig, Moment};
use crate::error::{ApiError, listed, shown};
use crate::names;
use crate::quantity::Quantity;
use crate::query::{Query, Reach};
use crate::reducer::{Reducer, reduced};
use crate::wire::{About, Value, ValueList};

/// What every question is asked of.
#[derive(Clone, Copy)]
pub(crate) struct Source<'adapter> {
    pub(crate) datastore: &'adapter Datastore,
    pub(crate) config: &'adapter AdapterConfig,
    /// The moment of the request.
    pub(crate) now: Moment,
}

/// A question about an external metric.
pub(crate) struct Asked<'request> {
    /// The namespace of the path.
    pub(crate) namespace: &'request str,
    /// The metric as the caller names it.
    pub(crate) metric: &'request str,
    /// The metric.
    pub(crate) family: &'static Family,
    /// Of which pools.
    pub(crate) query: &'request Query,
}

/// The values asked for: one per pool, or one in all where a reducer says so. All of them are known, or there is an error.
pub(crate) fn answer(source: Source<'_>, asked: &Asked<'_>, namespaces: &[Arc<str>]) -> Result<ValueList, ApiError> {
    let Asked { metric, family, query, .. } = *asked;
    let reducer = query.reducer.filter(|reducer| *reducer != Reducer::None);
    let snapshots = source.snapshots(query, namespaces);
    if family.kind == Kind::Mean && reducer.is_none() && snapshots.len() > 1 {
        return Err(several_pools(asked, &snapshots));
    }
    let metric_is_gke = names::is_gke(metric);
    let mut values = Vec::with_capacity(snapshots.len());
    for snapshot in &snapshots {
        let measured = source.measured(family, metric, query, snapshot)?;
        values.push((query.labels(&snapshot.id, metric_is_gke, source.config), measured));
    }
    if values.is_empty() {
        let asked_for = query.asked(asked.namespace);
        return Err(source.no_pool(metric, query, asked_for, namespaces, asked.namespace));
    }
    if let Some(reducer) = reducer {
        let measured = reduced(reducer, values.iter().map(|(_, measured)| *measured));
        let labels = shared_labels(values.iter().map(|(labels, _)| labels));
        values = measured.into_iter().map(|measured| (labels.clone(), measured)).collect();
    }
    let written =
        |(labels, measured)| source.value(About::Series(labels), measured, || (shown(metric), query.asked(asked.namespace)));
    Ok(ValueList::external(metric.to_owned(), values.into_iter().map(written).collect::<Result<_, _>>()?))
}

/// The namespaces that the question is about and its caller may read.
///
/// # Errors
/// [`ApiError`] with 403 where one of them may not be read; 400 for too many.
pub(crate) async fn namespaces(source: Source<'_>, asked: &Asked<'_>, caller: &Caller) -> Result<Vec<Arc<str>>, ApiError> {
    let (namespaces, open) = match asked.query.reach(asked.metric, asked.namespace, source.config)? {
        Reach::Own => return Ok(vec![asked.namespace.into()]),
        Reach::Named(names) => (names, None),
        Reach::Open(words) => (asked.query.matching_namespaces(source.datastore), Some(words)),
    };
    for namespace in &namespaces {
        // The request's own was authorised before it came here.
        if **namespace == *asked.namespace || source.config.authorizer.may_read(caller, namespace, asked.metric).await {
            continue;
        }
        return Err(ApiError::NotPermitted {
            metric: shown(asked.metric),
            user: shown(&caller.name),
            // Which namespaces there are is not for everyone to know.
            scope: match open {
                Some(words) => format!("all the namespaces that {words:?} matches"),
                None => format!("the namespace {:?}", shown(namespace)),
            },
        });
    }
    Ok(namespaces)
}

impl Source<'_> {
    /// The pools meant in `namespaces`, at this moment. A pool that went away since it was listed is none.
    pub(crate) fn snapshots(&self, query: &Query, namespaces: &[Arc<str>]) -> Vec<PoolSnapshot> {
        let candidates = query.candidates(self.datastore, namespaces, self.config);
        candidates.iter().filter_map(|pool| self.datastore.snapshot(pool, &query.pods, self.now.instant)).collect()
    }

    /// The value of a pool.
    pub(crate) fn measured(&self, family: &Family, metric: &str, query: &Query, pool: &PoolSnapshot) -> Result<Measured, ApiError> {
        if let Some((key, _)) = query.model.as_ref().filter(|_| !family.is_by_model()) {
            return Err(ApiError::NotByModel { metric: shown(metric), key: shown(key) });
        }
        let of_model = query.model.as_ref().map(|(_, model)| pool.clone().for_model(model));
        let pool = of_model.as_ref().unwrap_or(pool);
        (family.measure)(pool).map_err(|unknown| self.not_known(metric, query, &pool.id, &unknown))
    }

    /// A value as it is written; `about` is the metric and what was asked, for the error.
    pub(crate) fn value(
        &self,
        about: About,
        measured: Measured,
        asked: impl FnOnce() -> (String, String),
    ) -> Result<Value, ApiError> {
        let value = Quantity::from_f64(measured.value).map_err(|source| {
            let (metric, asked) = asked();
            ApiError::NotAnAmount { metric, asked, source }
        })?;
        Ok(Value { about, timestamp: self.now.wall(measured.as_of), age: self.now.age(measured.as_of), value })
    }

    fn not_known(&self, metric: &str, query: &Query, pool: &PoolId, unknown: &Unknown) -> ApiError {
        let of = match query.pods.is_everything() {
            true => format!("pool {pool}"),
            false => format!("pool {pool} (pods with {})", shown(&query.pods.to_string())),
        };
        ApiError::Unknown { metric: shown(metric), of, cause: unknown.to_string(), since: self.since(unknown.last_known()) }
    }

    /// When something was last known, as the end of a sentence.
    pub(crate) fn since(&self, last_known: Option<tokio::time::Instant>) -> String {
        last_known.map_or_else(String::new, |known| {
            format!("; last known at {}, {} s ago", self.now.wall(known), self.now.age(known).as_secs())
        })
    }

    /// That no pool matches, and which there are in the namespaces that the caller may read.
    pub(crate) fn no_pool(&self, metric: &str, query: &Query, asked: String, namespaces: &[Arc<str>], own: &str) -> ApiError {
        let crosses = namespaces.iter().any(|namespace| **namespace != *own);
        let within = match crosses {
            true => "the namespaces asked for".to_owned(),
            false => format!("namespace {}", shown(own)),
        };
        let in_reach: Vec<_> = namespaces.iter().flat_map(|namespace| self.datastore.pool_ids_in(namespace)).collect();
        let there = match (query.mismatch(self.config), in_reach.is_empty()) {
            (Some((requirement, here)), _) => {
                format!("{:?} does not hold here, where it is {here:?}", shown(&requirement.to_string()))
            }
            (None, true) => format!("there is no pool in {within}"),
            (None, false) => format!("the pools in {within} are {}", listed(&pool_names(in_reach.iter(), crosses))),
        };
        ApiError::NoPool { metric: shown(metric), asked, there }
    }
}

/// The labels in which all agree: those of what was made of several.
fn shared_labels<'labels>(mut all: impl Iterator<Item = &'labels BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut shared = all.next().cloned().unwrap_or_default();
    for labels in all {
        shared.retain(|key, value| labels.get(key) == Some(value));
    }
    shared
}

fn several_pools(asked: &Asked<'_>, snapshots: &[PoolSnapshot]) -> ApiError {
    let crosses = snapshots.iter().any(|pool| *pool.id.namespace != *asked.namespace);
    ApiError::SeveralPools {
        metric: shown(asked.metric),
        asked: asked.query.asked(asked.namespace),
        count: snapshots.len(),
        pools: listed(&pool_names(snapshots.iter().map(|pool| &pool.id), crosses)),
        total: match names::total_for(asked.family) {
            Some(total) => format!("the total {total}"),
            None => "a total such as inference_pool_total_inflight_requests".to_owned(),
        },
    }
}

/// The names of pools, with their namespaces where these differ from the request's.
pub(crate) fn pool_names<'pools>(pools: impl Iterator<Item = &'pools PoolId>, with_namespace: bool) -> Vec<String> {
    pools.map(|pool| if with_namespace { pool.to_string() } else { pool.name.to_string() }).collect()
}
