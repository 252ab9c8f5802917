//! Which source counts which picker: pure.
//!
//! Several sources may tell of one picker: two weirs that read one Go picker, a weir that follows another. Each name is counted by
//! exactly one of them, with the youngest load that any of them tells. It stays with its source for as long as that source tells of
//! it, so that requests do not wander between the cells of two sources under a reader's eyes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::PickerLoad;
use weir_datastore::stream::SILENCE;

/// The name of a picker, and of a source.
pub(super) type Name = Arc<str>;

/// What sources tell of pickers, and whose each of them is.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// The configured sources. A picker called like one of them is that one, and what others say of it is passed over.
    configured: HashSet<Name>,
    /// What each source told last; none of a load: a picker that the source cannot read.
    told: BTreeMap<Name, Told>,
    owners: HashMap<Name, Name>,
}

#[derive(Debug)]
struct Told {
    heard_at: Instant,
    pickers: HashMap<Name, Option<PickerLoad>>,
}

/// What a source counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Share {
    /// The sum over its pickers, as old as the oldest of them.
    Known(PickerLoad),
    /// One of its pickers cannot be read: a sum without it would be too small.
    Unreadable {
        /// Which picker.
        picker: Name,
        /// For how long; none where it never told anything.
        silent_for: Option<Duration>,
    },
}

impl Attribution {
    /// From now on these are the sources. What others told is forgotten.
    pub(super) fn configure(&mut self, sources: impl Iterator<Item = Name>) {
        self.configured = sources.collect();
        self.told.retain(|source, _| self.configured.contains(source));
        self.settle();
    }

    /// Whether `source` is configured.
    pub(super) fn knows(&self, source: &Name) -> bool {
        self.configured.contains(source)
    }

    /// `source` tells of all pickers that it knows.
    pub(super) fn told(&mut self, source: &Name, pickers: HashMap<Name, Option<PickerLoad>>, heard_at: Instant) {
        if self.configured.contains(source) {
            self.told.insert(source.clone(), Told { heard_at, pickers });
            self.settle();
        }
    }

    /// `source` cannot be relied on any more.
    pub(super) fn lost(&mut self, source: &Name) {
        self.told.remove(source);
        self.settle();
    }

    /// What `source` counts at `now`; none where it tells nothing.
    pub(super) fn share(&self, source: &Name, now: Instant) -> Option<Share> {
        let told = self.told.get(source)?;
        let mut sum = PickerLoad { read_at: told.heard_at, held: None, in_flight: None, arrivals: 0, prompt_tokens: None };
        let mut first = true;
        for picker in told.pickers.keys().filter(|picker| self.owners.get(*picker) == Some(source)) {
            let unreadable = |silent_for| Some(Share::Unreadable { picker: picker.clone(), silent_for });
            let Some(load) = self.youngest(picker) else { return unreadable(None) };
            let age = now.saturating_duration_since(load.read_at);
            if age > SILENCE {
                return unreadable(Some(age));
            }
            sum.read_at = sum.read_at.min(load.read_at);
            sum.arrivals = sum.arrivals.saturating_add(load.arrivals);
            sum.held = added(sum.held, load.held);
            sum.in_flight = added(sum.in_flight, load.in_flight);
            // Prompts without those of one picker would look shorter than they are.
            sum.prompt_tokens = match (first, sum.prompt_tokens, load.prompt_tokens) {
                (true, _, tokens) => tokens,
                (false, Some(sum), Some(tokens)) => Some(sum.saturating_add(tokens)),
                _ => None,
            };
            first = false;
        }
        Some(Share::Known(sum))
    }

    /// The youngest load that anybody tells of `picker`.
    fn youngest(&self, picker: &Name) -> Option<PickerLoad> {
        self.may_tell(picker).filter_map(|(_, load)| load).max_by_key(|load| load.read_at)
    }

    /// The sources that may count `picker`, each with what it tells.
    fn may_tell(&self, picker: &Name) -> impl Iterator<Item = (&Name, Option<PickerLoad>)> {
        let reserved = self.configured.contains(picker);
        let own = move |source: &Name| !reserved || source == picker;
        self.told.iter().filter_map(move |(source, told)| {
            let load = *told.pickers.get(picker).filter(|_| own(source))?;
            Some((source, load))
        })
    }

    /// Gives every picker an owner.
    fn settle(&mut self) {
        let pickers: HashSet<Name> = self.told.values().flat_map(|told| told.pickers.keys().cloned()).collect();
        let mut owners = HashMap::new();
        for picker in pickers {
            let before = self.owners.get(&picker);
            let stays = self.may_tell(&picker).find(|(source, _)| Some(*source) == before);
            // The youngest word wins; of equals the first by name, wherever this is computed.
            let youngest = || {
                let read_at = |load: Option<PickerLoad>| load.map(|load| load.read_at);
                self.may_tell(&picker).reduce(|best, next| if read_at(next.1) > read_at(best.1) { next } else { best })
            };
            if let Some((owner, _)) = stays.or_else(youngest) {
                owners.insert(picker, owner.clone());
            }
        }
        self.owners = owners;
    }
}

/// The sum of what is known.
fn added(sum: Option<u64>, one: Option<u64>) -> Option<u64> {
    match (sum, one) {
        (None, one) | (one, None) => one,
        (Some(sum), Some(one)) => Some(sum.saturating_add(one)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(read_at: Instant, held: Option<u64>) -> PickerLoad {
        PickerLoad { read_at, held, in_flight: None, arrivals: 10, prompt_tokens: None }
    }

    fn name(name: &str) -> Name {
        name.into()
    }

    fn told(pickers: &[(&str, Option<PickerLoad>)]) -> HashMap<Name, Option<PickerLoad>> {
        pickers.iter().map(|(picker, load)| (name(picker), *load)).collect()
    }

    fn held(attribution: &Attribution, source: &str, now: Instant) -> Option<u64> {
        match attribution.share(&name(source), now) {
            Some(Share::Known(load)) => load.held,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn a_picker_that_two_tell_of_counts_once_with_its_youngest_load() {
        let now = Instant::now();
        let later = now + Duration::from_millis(300);
        let mut attribution = Attribution::default();
        attribution.configure([name("a"), name("b")].into_iter());
        attribution.told(&name("a"), told(&[("go", Some(load(now, Some(4)))), ("mine", Some(load(now, Some(1))))]), later);
        attribution.told(&name("b"), told(&[("go", Some(load(later, Some(7))))]), later);
        assert_eq!(held(&attribution, "a", later), Some(8), "the first to tell keeps it, with the younger load");
        assert_eq!(held(&attribution, "b", later), None, "nothing of its own");
        attribution.lost(&name("a"));
        assert_eq!(attribution.share(&name("a"), later), None);
        assert_eq!(held(&attribution, "b", later), Some(7));
        attribution.told(&name("a"), told(&[("go", Some(load(later, Some(9)))), ("mine", Some(load(later, None)))]), later);
        assert_eq!((held(&attribution, "a", later), held(&attribution, "b", later)), (None, Some(7)), "it does not wander back");
        attribution.configure([name("a")].into_iter());
        assert_eq!(held(&attribution, "a", later), Some(9));
    }

    #[test]
    fn a_picker_that_is_a_source_itself_is_told_by_that_one_alone() {
        let now = Instant::now();
        let mut attribution = Attribution::default();
        attribution.configure([name("a"), name("b")].into_iter());
        attribution.told(&name("b"), told(&[("a", Some(load(now, Some(5))))]), now);
        assert_eq!(held(&attribution, "b", now), None);
        attribution.told(&name("a"), told(&[("a", Some(load(now, Some(6)))), ("b", Some(load(now, Some(3))))]), now);
        assert_eq!((held(&attribution, "a", now), held(&attribution, "b", now)), (Some(6), None));
        attribution.told(&name("stranger"), told(&[("x", Some(load(now, Some(3))))]), now);
        assert_eq!(attribution.share(&name("stranger"), now), None);
    }

    #[test]
    fn one_picker_that_cannot_be_read_makes_the_sum_unknown_and_not_smaller() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut attribution = Attribution::default();
        attribution.configure([name("a"), name("b")].into_iter());
        attribution.told(&name("a"), told(&[("x", Some(load(now, Some(5)))), ("y", None)]), now);
        let never = Share::Unreadable { picker: name("y"), silent_for: None };
        assert_eq!(attribution.share(&name("a"), now), Some(never));
        attribution.told(&name("b"), told(&[("y", Some(load(now, Some(2))))]), now);
        assert_eq!(held(&attribution, "a", now), Some(7), "somebody else can read it");
        let old = SILENCE + Duration::from_millis(1);
        attribution.told(&name("b"), told(&[("y", Some(load(now - old, Some(2))))]), now);
        let silent = Share::Unreadable { picker: name("y"), silent_for: Some(old) };
        assert_eq!(attribution.share(&name("a"), now), Some(silent));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Told { source: usize, pickers: Vec<(usize, u64)>, at: u64 },
        Lost { source: usize },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let told = (0_usize..4, prop::collection::vec((0_usize..6, 0_u64..100), 0..5), 0_u64..1000)
            .prop_map(|(source, pickers, at)| Event::Told { source, pickers, at });
        let lost = (0_usize..4).prop_map(|source| Event::Lost { source });
        prop::collection::vec(prop_oneof![4 => told, 1 => lost], 1..30)
    }

    proptest! {
        #[test]
        fn each_picker_counts_exactly_once_whatever_happened_before(events in events()) {
            // `s0` is a source's name and a picker's.
            let picker = |index: usize| if index == 0 { name("s0") } else { name(&format!("p{index}")) };
            let source = |index: usize| name(&format!("s{index}"));
            let start = Instant::now();
            let now = start + Duration::from_secs(1);
            let mut attribution = Attribution::default();
            attribution.configure((0..4).map(source));
            let mut last: BTreeMap<usize, HashMap<Name, Option<PickerLoad>>> = BTreeMap::new();
            for event in events {
                match event {
                    Event::Told { source: index, pickers, at } => {
                        let read_at = start + Duration::from_millis(at);
                        let pickers: HashMap<_, _> =
                            pickers.into_iter().map(|(index, held)| (picker(index), Some(load(read_at, Some(held))))).collect();
                        attribution.told(&source(index), pickers.clone(), now);
                        last.insert(index, pickers);
                    }
                    Event::Lost { source: index } => {
                        attribution.lost(&source(index));
                        last.remove(&index);
                    }
                }
                // Recomputed from nothing but what is told at present, by another rule than ownership.
                let mut youngest: BTreeMap<Name, Vec<PickerLoad>> = BTreeMap::new();
                for (index, pickers) in &last {
                    for (picker, load) in pickers {
                        if *picker != name("s0") || *index == 0 {
                            youngest.entry(picker.clone()).or_default().extend(*load);
                        }
                    }
                }
                let shares: Vec<_> = (0..4).filter_map(|index| attribution.share(&source(index), now)).collect();
                prop_assert_eq!(shares.len(), last.len());
                let (mut held, mut arrivals) = (0, 0);
                for share in shares {
                    let Share::Known(load) = share else { return Err(TestCaseError::fail("all can be read")) };
                    held += load.held.unwrap_or(0);
                    arrivals += load.arrivals;
                }
                prop_assert_eq!(arrivals, 10 * youngest.len() as u64, "each counted once");
                let newest = |loads: &Vec<PickerLoad>| loads.iter().map(|load| load.read_at).max();
                let most: u64 = youngest.values().map(|loads| {
                    loads.iter().filter(|load| Some(load.read_at) == newest(loads)).filter_map(|load| load.held).max().unwrap_or(0)
                }).sum();
                let least: u64 = youngest.values().map(|loads| {
                    loads.iter().filter(|load| Some(load.read_at) == newest(loads)).filter_map(|load| load.held).min().unwrap_or(0)
                }).sum();
                prop_assert!((least..=most).contains(&held), "{least} <= {held} <= {most}");
            }
        }
    }
}
