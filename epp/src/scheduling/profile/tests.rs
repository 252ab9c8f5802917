use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::scheduling::SchedulingConfig;
use crate::scheduling::filters::HeaderTestingFilter;
use crate::scheduling::pickers::{MaxScorePicker, RandomPicker, WeightedRandomPicker};
use crate::scheduling::plugin::Unobserved;
use crate::scheduling::testing::{Asked, Loads};

fn default_profile() -> Profile {
    SchedulingConfig::default().profiles.remove(0)
}

/// What a run chose: indices, whether it explored, and who left nothing.
#[derive(Debug, Default, Eq, PartialEq)]
struct Ran {
    indices: Vec<usize>,
    explored: bool,
    emptied_by: Option<Arc<str>>,
}

fn run(profile: &Profile, loads: &Loads, rng: &mut StdRng) -> Ran {
    let asked = Asked::default();
    let mut cycle = Cycle { rng, clock: &Instant::now, observer: &Unobserved };
    let selected = profile.run(&asked.request(loads), &mut loads.candidates(), &mut Buffers::default(), &mut cycle);
    let indices = selected.endpoints.iter().map(|endpoint| endpoint.index).collect();
    Ran { indices, explored: selected.explored, emptied_by: selected.emptied_by }
}

#[test]
fn the_default_weights_add_up() {
    // queue 2, KV cache 2, prefix 3; hand-worked: 2·1 + 2·0.1 + 0 = 2.2; 2·0 + 2·1 + 3·0.5 = 3.5; 2·0.5 + 2·0.9 + 0 = 2.8.
    let mut loads = Loads::waiting(&[0.0, 4.0, 2.0]);
    for (page, utilization) in loads.pages.iter_mut().zip([0.9, 0.0, 0.1]) {
        page.kv_cache_utilization = Loads::combined(utilization);
    }
    loads.prefix_blocks = 4;
    loads.matched_blocks = vec![0, 2, 0];
    let mut profile = default_profile();
    profile.picker.plugin = Arc::new(MaxScorePicker { most: 3 });
    assert_eq!(run(&profile, &loads, &mut StdRng::seed_from_u64(1)).indices, [1, 2, 0]);
    loads.matched_blocks[1] = 0;
    assert_eq!(run(&profile, &loads, &mut StdRng::seed_from_u64(1)).indices, [2, 0, 1]);
}

#[test]
fn a_score_that_is_not_known_is_the_lowest_and_scores_are_held_within_bounds() {
    let mut totals = [0.0; 4];
    add_weighted(&mut totals, &[Some(0.25), None, Some(7.0), Some(f64::NAN)], 2.0);
    assert_eq!(totals, [0.5, 0.0, 2.0, 0.0]);
    add_weighted(&mut totals, &[Some(0.5), None, Some(1.0), Some(0.75)], 1.0);
    assert_eq!(totals, [1.0, 0.5, 3.0, 0.75]);
    add_weighted(&mut totals, &[None; 4], 9.0);
    assert_eq!(totals, [1.0, 0.5, 3.0, 0.75], "nobody knows: nothing is decided by it");
}

#[test]
fn an_unknown_endpoint_gets_the_exploration_share_and_not_more() {
    let mut loads = Loads::waiting(&[50.0, 0.0, 60.0]);
    loads.unknown = vec![1];
    let mut profile = default_profile();
    profile.exploration = 0.05;
    let mut rng = StdRng::seed_from_u64(3);
    let explored = (0..20_000).filter(|_| run(&profile, &loads, &mut rng).indices == [1]).count();
    // 1,000 expected; five standard deviations are 154.
    assert!((846..=1154).contains(&explored), "{explored}");
    profile.exploration = 0.0;
    assert!((0..1000).all(|_| run(&profile, &loads, &mut rng).indices == [0]));
}

#[test]
fn where_nobody_is_known_the_least_in_flight_wins() {
    let mut loads = Loads::waiting(&[0.0, 0.0, 0.0]);
    loads.unknown = vec![0, 1, 2];
    loads.in_flight = vec![3, 1, 2];
    let mut rng = StdRng::seed_from_u64(3);
    let selected = run(&default_profile(), &loads, &mut rng);
    assert_eq!((selected.indices, selected.explored), (vec![1], false));
}

#[test]
fn the_unknown_are_what_is_fallen_back_on() {
    let mut loads = Loads::waiting(&[4.0, 0.0, 2.0]);
    loads.unknown = vec![1];
    let mut profile = default_profile();
    profile.picker.plugin = Arc::new(MaxScorePicker { most: 5 });
    profile.exploration = 0.0;
    let mut rng = StdRng::seed_from_u64(3);
    assert_eq!(run(&profile, &loads, &mut rng).indices, [2, 0, 1]);
    profile.exploration = 1.0;
    assert_eq!(run(&profile, &loads, &mut rng).indices, [1, 2, 0]);
}

#[test]
fn a_filter_that_leaves_nothing_is_named() {
    let mut profile = default_profile();
    let name = PluginName { kind: "header-based-testing-filter", name: "mine".into() };
    profile.filters.push(Named { name, plugin: Arc::new(HeaderTestingFilter) });
    let selected = run(&profile, &Loads::waiting(&[0.0]), &mut StdRng::seed_from_u64(3));
    assert_eq!((selected.indices.len(), selected.emptied_by.as_deref()), (0, Some("mine")));
    let nobody = run(&default_profile(), &Loads::waiting(&[]), &mut StdRng::seed_from_u64(3));
    assert_eq!(nobody, Ran::default());
}

proptest! {
    /// Whatever the loads: as many as asked for, each once, and no unknown one before a known one unless it was explored.
    #[test]
    fn the_known_come_first(
        queues in prop::collection::vec(0u32..9, 1..12),
        unknown in prop::collection::vec(any::<bool>(), 12),
        most in 1usize..14,
        picker in 0..3,
        exploration in prop_oneof![Just(0.0), Just(0.5)],
        seed in any::<u64>(),
    ) {
        let mut loads = Loads::waiting(&queues.iter().map(|queue| f64::from(*queue)).collect::<Vec<_>>());
        loads.unknown = (0..queues.len()).filter(|index| unknown[*index]).collect();
        let mut profile = default_profile();
        profile.exploration = exploration;
        profile.picker.plugin = match picker {
            0 => Arc::new(MaxScorePicker { most }) as Arc<dyn Picker>,
            1 => Arc::new(RandomPicker { most }),
            _ => Arc::new(WeightedRandomPicker { most }),
        };
        let selected = run(&profile, &loads, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(selected.indices.len(), most.min(queues.len()));
        let mut sorted = selected.indices.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), selected.indices.len());
        let after_exploration = usize::from(selected.explored);
        let kinds: Vec<bool> = selected.indices.iter().skip(after_exploration).map(|index| loads.unknown.contains(index)).collect();
        prop_assert!(kinds.is_sorted(), "{:?}", selected);
        if selected.explored {
            prop_assert!(loads.unknown.contains(&selected.indices[0]) && loads.unknown.len() < queues.len());
        }
    }
}
