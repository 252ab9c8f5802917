//! Metric names: the dialect of GKE's adapter, and what a mistyped name may have meant.

use weir_datastore::catalog::{FAMILIES, Family, Kind, find};

/// How GKE's adapter names what Managed Prometheus collected: `prometheus.googleapis.com|NAME|TYPE`.
const PREFIX: &str = "prometheus.googleapis.com|";

/// The types that a number may have been collected as; a histogram is no number.
const TYPES: [&str; 3] = ["gauge", "counter", "unknown"];

/// How many near names an error lists.
const MOST_NEAR: usize = 3;

/// Longest name that is compared, in characters.
const LONGEST: usize = 128;

/// Least similarity of a near name.
const NEAR: f64 = 0.75;

/// The family that `name` means, in either dialect.
pub(crate) fn family(name: &str) -> Option<&'static Family> {
    find(plain(name))
}

/// Whether `name` is in GKE's dialect.
pub(crate) fn is_gke(name: &str) -> bool {
    plain(name).len() != name.len()
}

/// `name` without the dialect, where it is in the dialect.
pub(crate) fn plain(name: &str) -> &str {
    match name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('|')) {
        Some((plain, kind)) if TYPES.contains(&kind) => plain,
        _ => name,
    }
}

/// Up to three families of pools whose names are like `name`, the nearest first.
pub(crate) fn near(name: &str) -> Vec<&'static str> {
    near_among(name, FAMILIES.iter().map(|family| family.name))
}

/// Up to three of `names` that are like `name`, the nearest first.
pub(crate) fn near_among(name: &str, names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let wanted = own_part(name).to_ascii_lowercase();
    let similarity = |name| similarity(&words(own_part(name)), &words(&wanted));
    let mut near: Vec<_> = names.map(|name| (similarity(name), name)).collect();
    near.retain(|(similarity, _)| *similarity >= NEAR);
    near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    near.into_iter().take(MOST_NEAR).map(|(_, name)| name).collect()
}

/// What tells a name from others: all of ours begin alike.
fn own_part(name: &str) -> &str {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let name = name.split('|').next().unwrap_or_default();
    let name = ["inference_pool_", "inference_pod_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    name.char_indices().nth(LONGEST).map_or(name, |(end, _)| &name[..end])
}

fn words(name: &str) -> Vec<&str> {
    name.split(['_', ':', '.', '-']).filter(|word| !word.is_empty()).collect()
}

/// From 0 to 1: how like each word is to the likest of the other name, on average. Names of metrics differ by whole words (a missing
/// one, an abbreviation, another order), which a distance in letters does not see.
fn similarity(one: &[&str], other: &[&str]) -> f64 {
    let likest = |word: &str, among: &[&str]| among.iter().map(|other| strsim::jaro_winkler(word, other)).fold(0.0, f64::max);
    let sum: f64 = one.iter().map(|word| likest(word, other)).chain(other.iter().map(|word| likest(word, one))).sum();
    match one.len() + other.len() {
        0 => 0.0,
        words => sum / words as f64,
    }
}

/// The total that says of several pools what `mean` says of one.
pub(crate) fn total_for(mean: &Family) -> Option<&'static str> {
    let signal = ["inference_pool_average_", "inference_pool_max_"].iter().find_map(|prefix| mean.name.strip_prefix(prefix))?;
    find(&format!("inference_pool_total_{signal}")).filter(|total| total.kind == Kind::Total).map(|total| total.name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_dialects_name_the_same_families() {
        let expected = Some("inference_pool_average_queue_size");
        for (name, expected) in [
            ("inference_pool_average_queue_size", expected),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|gauge", expected),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|counter", expected),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|unknown", expected),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|histogram", None),
            ("prometheus.googleapis.com|inference_pool_average_queue_size", None),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|gauge|gauge", None),
            ("prometheus.googleapis.com||gauge", None),
            ("custom.googleapis.com|inference_pool_average_queue_size|gauge", None),
            ("inference_pool_average_queue_size|gauge", None),
            ("INFERENCE_POOL_AVERAGE_QUEUE_SIZE", None),
            ("", None),
        ] {
            assert_eq!(family(name).map(|family| family.name), expected, "{name}");
        }
        assert!(is_gke("prometheus.googleapis.com|x|gauge") && !is_gke("x|gauge"));
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (name, expected) in [
            ("inference_pool_average_kv_cache_utilisation", "inference_pool_average_kv_cache_utilization"),
            ("inference_pool_avg_kv_cache_utilization", "inference_pool_average_kv_cache_utilization"),
            ("inference_pool_average_queue", "inference_pool_average_queue_size"),
            ("pool_queue_average_size", "inference_pool_average_queue_size"),
            ("total_queue_size", "inference_pool_total_queue_size"),
            ("inference_pool_Held_Requests", "inference_pool_held_requests"),
            ("prometheus.googleapis.com|inference_pool_average_queue_sizes|gauge", "inference_pool_average_queue_size"),
            ("prometheus.googleapis.com|inference_pool_average_queue_size|summary", "inference_pool_average_queue_size"),
            ("saturation", "inference_pool_saturation"),
        ] {
            assert_eq!(near(name).first(), Some(&expected), "{name}: {:?}", near(name));
        }
    }

    #[test]
    fn of_equally_near_names_each_is_listed() {
        let near = near("inference_pool_total_requests");
        for name in ["inference_pool_total_running_requests", "inference_pool_total_inflight_requests"] {
            assert!(near.contains(&name), "{near:?}");
        }
    }

    #[test]
    fn what_is_like_nothing_has_no_near_names() {
        for name in ["", "foo", "s0-http-www_example", "DCGM_FI_DEV_GPU_UTIL", "inference_pool_"] {
            assert_eq!(near(name), Vec::<&str>::new(), "{name}");
        }
    }

    #[test]
    fn a_mean_has_a_total_where_adding_up_makes_sense() {
        let total = |mean| total_for(find(mean).unwrap());
        assert_eq!(total("inference_pool_average_queue_size"), Some("inference_pool_total_queue_size"));
        assert_eq!(total("inference_pool_max_kv_cache_utilization"), Some("inference_pool_total_kv_cache_utilization"));
        assert_eq!(total("inference_pool_saturation"), None);
    }

    proptest! {
        #[test]
        fn any_name_is_an_answer(name in "(prometheus.googleapis.com\\|)?(inference_pool_)?\\PC{0,200}(\\|gauge)?") {
            prop_assert!(near(&name).len() <= MOST_NEAR);
        }

        #[test]
        fn each_family_is_found_in_each_dialect(position in 0..FAMILIES.len(), kind in proptest::sample::select(&TYPES[..])) {
            let name = FAMILIES[position].name;
            let in_dialect = format!("{PREFIX}{name}|{kind}");
            prop_assert_eq!(family(name).map(|family| family.name), Some(name));
            prop_assert_eq!(family(&in_dialect).map(|family| family.name), Some(name));
            prop_assert_eq!(near(name).first().copied(), Some(name));
        }
    }
}
