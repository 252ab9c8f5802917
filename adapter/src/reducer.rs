//! How several values become one.

use weir_datastore::Measured;
use weir_datastore::selector::Requirement;

use crate::error::{ApiError, shown};
use crate::query::single;

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
    pub(crate) const ALL: [(&str, Self); 6] = [
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

    pub(crate) fn read(requirement: &Requirement) -> Result<Self, ApiError> {
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

/// One value of several, as old as the oldest; none of none.
pub(crate) fn reduced(reducer: Reducer, measured: impl ExactSizeIterator<Item = Measured> + Clone) -> Option<Measured> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::query::Query;

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
