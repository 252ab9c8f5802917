//! From a question to its values, or to the truth about why there are none.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_datastore::catalog::{Family, Kind};
use weir_datastore::{Datastore, Measured, PoolId, Unknown};

use crate::config::{AdapterConfig, Moment};
use crate::error::{ApiError, listed, shown};
use crate::names;
use crate::quantity::Quantity;
use crate::query::{Choice, Query, Reducer};
use crate::wire::Value;

/// One question.
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

/// The values of an answer, and how old each is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) values: Vec<Value>,
    pub(crate) ages: Vec<Duration>,
}

/// The values asked for: one per pool, or one in all where a reducer says so. All of them are known, or there is an error.
pub(crate) fn answer(datastore: &Datastore, config: &AdapterConfig, asked: &Asked<'_>, now: Moment) -> Result<Answer, ApiError> {
    let choice = asked.query.choose(datastore.pool_ids(), asked.metric, asked.namespace, config)?;
    let reducer = asked.query.reducer.filter(|reducer| *reducer != Reducer::None);
    if asked.family.kind == Kind::Mean && reducer.is_none() && choice.chosen.len() > 1 {
        return Err(several_pools(asked, config, &choice));
    }
    let mut values = Vec::with_capacity(choice.chosen.len());
    for pool in &choice.chosen {
        // A pool that went away since the choice is none.
        let Some(snapshot) = datastore.snapshot(pool, &asked.query.pods, now.instant) else { continue };
        let measured = (asked.family.measure)(&snapshot).map_err(|unknown| not_known(asked, pool, &unknown, now))?;
        values.push((asked.query.labels(pool, config), measured));
    }
    if values.is_empty() {
        return Err(no_pool(asked, config, &choice));
    }
    if let Some(reducer) = reducer {
        let measured = reduced(reducer, values.iter().map(|(_, measured)| *measured));
        let labels = shared_labels(values.iter().map(|(labels, _)| labels));
        values = measured.into_iter().map(|measured| (labels.clone(), measured)).collect();
    }
    let ages = values.iter().map(|(_, measured)| now.age(measured.as_of)).collect();
    let written = |(labels, measured): (BTreeMap<_, _>, Measured)| {
        let value = Quantity::from_f64(measured.value).map_err(|source| ApiError::NotAnAmount {
            metric: shown(asked.metric),
            asked: asked.query.asked(asked.namespace),
            source,
        })?;
        Ok(Value { metric_name: asked.metric.to_owned(), metric_labels: labels, timestamp: now.wall(measured.as_of), value })
    };
    Ok(Answer { values: values.into_iter().map(written).collect::<Result<_, ApiError>>()?, ages })
}

/// The labels in which all agree: those of what was made of several.
fn shared_labels<'labels>(mut all: impl Iterator<Item = &'labels BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut shared = all.next().cloned().unwrap_or_default();
    for labels in all {
        shared.retain(|key, value| labels.get(key) == Some(value));
    }
    shared
}

/// One value of several, as old as the oldest; none of none.
fn reduced(reducer: Reducer, measured: impl ExactSizeIterator<Item = Measured> + Clone) -> Option<Measured> {
    let as_of = measured.clone().map(|measured| measured.as_of).min()?;
    let count = measured.len() as f64;
    let values = measured.map(|measured| measured.value);
    let value = match reducer {
        Reducer::None => return None,
        Reducer::Mean => values.sum::<f64>() / count,
        Reducer::Min => values.reduce(f64::min)?,
        Reducer::Max => values.reduce(f64::max)?,
        Reducer::Sum => values.sum(),
        Reducer::Count => count,
    };
    Some(Measured { value, as_of })
}

fn not_known(asked: &Asked<'_>, pool: &PoolId, unknown: &Unknown, now: Moment) -> ApiError {
    let pool = match asked.query.pods.is_everything() {
        true => pool.to_string(),
        false => format!("{pool} (pods with {})", shown(&asked.query.pods.to_string())),
    };
    let since = unknown
        .last_known()
        .map_or_else(String::new, |known| format!("; last known at {}, {} s ago", now.wall(known), now.age(known).as_secs()));
    ApiError::Unknown { metric: shown(asked.metric), pool, cause: unknown.to_string(), since }
}

fn no_pool(asked: &Asked<'_>, config: &AdapterConfig, choice: &Choice) -> ApiError {
    let crosses = asked.query.crosses_namespaces(config);
    let namespace = match crosses {
        true => "the namespaces asked for".to_owned(),
        false => format!("namespace {}", shown(asked.namespace)),
    };
    let there = match (asked.query.mismatch(config), choice.in_reach.is_empty()) {
        (Some((requirement, here)), _) => {
            format!("{:?} does not hold here, where it is {here:?}", shown(&requirement.to_string()))
        }
        (None, true) => format!("there is no pool in {namespace}"),
        (None, false) => format!("the pools in {namespace} are {}", listed(&pool_names(&choice.in_reach, crosses))),
    };
    ApiError::NoPool { metric: shown(asked.metric), asked: asked.query.asked(asked.namespace), there }
}

fn several_pools(asked: &Asked<'_>, config: &AdapterConfig, choice: &Choice) -> ApiError {
    ApiError::SeveralPools {
        metric: shown(asked.metric),
        asked: asked.query.asked(asked.namespace),
        count: choice.chosen.len(),
        pools: listed(&pool_names(&choice.chosen, asked.query.crosses_namespaces(config))),
        total: match names::total_for(asked.family) {
            Some(total) => format!("the total {total}"),
            None => "a total such as inference_pool_total_inflight_requests".to_owned(),
        },
    }
}

fn pool_names(pools: &[PoolId], with_namespace: bool) -> Vec<String> {
    let name = |pool: &PoolId| if with_namespace { pool.to_string() } else { pool.name.to_string() };
    pools.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    fn reduce(reducer: Reducer, values: &[f64]) -> Option<f64> {
        let as_of = Instant::now();
        reduced(reducer, values.iter().map(|value| Measured { value: *value, as_of })).map(|measured| measured.value)
    }

    #[test]
    fn a_reducer_makes_one_value() {
        let values = [1.0, 4.0, 1.0];
        assert_eq!(reduce(Reducer::Mean, &values), Some(2.0));
        assert_eq!(reduce(Reducer::Min, &values), Some(1.0));
        assert_eq!(reduce(Reducer::Max, &values), Some(4.0));
        assert_eq!(reduce(Reducer::Sum, &values), Some(6.0));
        assert_eq!(reduce(Reducer::Count, &values), Some(3.0));
        assert_eq!(reduce(Reducer::None, &values), None);
        assert_eq!(reduce(Reducer::Sum, &[]), None);
    }

    #[test]
    fn a_reduced_value_is_as_old_as_the_oldest() {
        let now = Instant::now();
        let older = now - Duration::from_secs(1);
        let measured = [Measured { value: 1.0, as_of: now }, Measured { value: 2.0, as_of: older }];
        assert_eq!(reduced(Reducer::Max, measured.into_iter()), Some(Measured { value: 2.0, as_of: older }));
    }

    proptest! {
        #[test]
        fn reduced_values_are_ordered(values in proptest::collection::vec(0.0..1e9, 1..10)) {
            let of = |reducer| reduce(reducer, &values).unwrap();
            prop_assert!(of(Reducer::Min) <= of(Reducer::Mean) * (1.0 + 1e-12));
            prop_assert!(of(Reducer::Mean) <= of(Reducer::Max) * (1.0 + 1e-12));
            prop_assert!(of(Reducer::Max) <= of(Reducer::Sum));
        }
    }
}
