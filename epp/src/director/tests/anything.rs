//! Whatever happens, in whatever order, on however many threads.

use proptest::prelude::*;
use rand::RngExt;

use super::*;

/// What may happen to a pool and its requests.
#[derive(Clone, Debug)]
enum Step {
    State(usize, u8),
    Page(usize, u32),
    Place(Option<Vec<usize>>),
    NeverPolled,
    Answer(usize, u16),
    Drop(usize),
    Wait(u64),
}

fn step(endpoints: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..endpoints, 0u8..4).prop_map(|(index, state)| Step::State(index, state)),
        3 => (0..endpoints, 0u32..20).prop_map(|(index, waiting)| Step::Page(index, waiting)),
        8 => prop::option::weighted(0.3, prop::collection::vec(0..endpoints, 0..3)).prop_map(Step::Place),
        1 => Just(Step::NeverPolled),
        6 => (any::<usize>(), prop_oneof![Just(200u16), Just(503u16)]).prop_map(|(which, status)| Step::Answer(which, status)),
        3 => any::<usize>().prop_map(Step::Drop),
        2 => (1u64..4000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens: what is picked is ready and in the subset; nobody ejected while others could be had; the unknown are not
    /// picked before the known unless explored; and the counts of requests in flight are exactly the tickets.
    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(4), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new(4);
            let mut states = vec![EndpointState::Ready; 4];
            let mut open: Vec<Pick> = Vec::new();
            for step in steps {
                match step {
                    Step::State(index, state) => {
                        states[index] = match state {
                            0 => EndpointState::Unready,
                            1 => EndpointState::Terminating,
                            _ => EndpointState::Ready,
                        };
                        rig.states(&states);
                    }
                    Step::Page(index, waiting) => rig.reads(index, 1, waiting, 0.2),
                    Step::NeverPolled => drop(rig.director.direct(request())),
                    Step::Answer(which, status) if !open.is_empty() => {
                        let at = which % open.len();
                        open[at].ticket.response_started(status, Instant::now());
                        drop(open.swap_remove(at));
                    }
                    Step::Drop(which) if !open.is_empty() => {
                        let at = which % open.len();
                        drop(open.swap_remove(at));
                    }
                    Step::Wait(millis) => advance(Duration::from_millis(millis)).await,
                    Step::Place(subset) => {
                        let allowed: Vec<usize> = match &subset {
                            Some(subset) => subset.clone(),
                            None => (0..4).collect(),
                        };
                        let asked = match &subset {
                            Some(subset) => only(&subset.iter().map(|index| (address(*index).ip(), None)).collect::<Vec<_>>()),
                            None => request(),
                        };
                        let now = Instant::now();
                        let possible: Vec<usize> = (0..4).filter(|index| states[*index] == EndpointState::Ready && allowed.contains(index)).collect();
                        let roster = rig.director.0.roster.load_full();
                        let admitted: Vec<usize> = possible.iter().copied().filter(|index| {
                            roster.members.get(*index).is_none_or(|member| member.state.health.admits(now))
                        }).collect();
                        let known: Vec<usize> = {
                            let snapshot = rig.store.snapshot(&pool(), &Selector::everything(), now).unwrap();
                            let among = if admitted.is_empty() { &possible } else { &admitted };
                            among.iter().copied().filter(|index| snapshot.endpoints[*index].fresh_load().is_some()).collect()
                        };
                        let explored = rig.director.0.metrics.explorations.get();
                        match rig.place(asked).await {
                            Ok(pick) => {
                                let index = (0..4).find(|index| address(*index) == pick.endpoints[0]).unwrap();
                                assert!(possible.contains(&index), "{index} is not ready or not in the subset");
                                assert!(admitted.is_empty() || admitted.contains(&index), "{index} is ejected");
                                let explored = rig.director.0.metrics.explorations.get() > explored;
                                assert!(explored || known.is_empty() || known.contains(&index), "{index} is unknown");
                                open.push(pick);
                            }
                            Err(refusal) => assert!(possible.is_empty(), "{refusal:?} of {possible:?}"),
                        }
                    }
                    Step::Answer(..) | Step::Drop(_) => {}
                }
                let mut expected = vec![0; 4];
                for pick in &open {
                    expected[(0..4).find(|index| address(*index) == pick.endpoints[0]).unwrap()] += 1;
                }
                let in_flight = rig.in_flight();
                assert!(in_flight.is_empty() && open.is_empty() || in_flight == expected, "{in_flight:?} is not {expected:?}");
            }
            drop(open);
            assert!(rig.in_flight().iter().all(|count| *count == 0));
        });
    }
}

/// Endpoints come and go while requests are placed: what stays keeps its count, whoever saw which topology first.
#[test]
fn counts_survive_changes_of_topology_under_load() {
    let mut rig = Rig::new(3);
    rig.all_idle();
    let steady = rig.look().unwrap().roster.members[0].state.clone();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let placing = [1_usize, 2].map(|keeps| {
            let (director, over) = (&rig.director, &over);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut open = std::collections::VecDeque::new();
                let mut placed = 0;
                while !over.load(Ordering::Relaxed) || placed < 200 {
                    open.push_back(runtime.block_on(director.direct(only(&[(address(0).ip(), None)]))).unwrap());
                    placed += 1;
                    if open.len() > keeps {
                        open.pop_front();
                    }
                }
                open
            })
        });
        for endpoints in (0..300).map(|round| 1 + round % 3) {
            rig.topology.upsert(spec(&vec![EndpointState::Ready; endpoints]), rig.start);
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        let open = placing.map(|thread| thread.join().unwrap());
        assert_eq!(steady.in_flight.total(), open.iter().map(|open| open.len() as u64).sum::<u64>());
    });
    let view = rig.look().unwrap();
    assert!(Arc::ptr_eq(&view.roster.members[0].state, &steady), "it was never away");
    assert_eq!(steady.in_flight.total(), 0);
}

/// Tickets of one pool begun and dropped on several threads at once, futures given up before and after they were polled.
#[test]
fn nothing_leaks_where_many_place_at_once() {
    let mut rig = Rig::new(3);
    rig.all_idle();
    let director = &rig.director;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed);
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut open = Vec::new();
                for _ in 0..500 {
                    let future = director.direct(request());
                    if rng.random_bool(0.2) {
                        drop(future);
                    } else {
                        let mut pick = runtime.block_on(future).unwrap();
                        if rng.random_bool(0.3) {
                            pick.ticket.served_by(address(rng.random_range(0..3)));
                        }
                        open.push(pick);
                    }
                    if open.len() > 20 {
                        open.swap_remove(rng.random_range(0..20));
                    }
                }
            });
        }
    });
    assert_eq!(rig.in_flight(), [0, 0, 0]);
    assert!(rig.told.lock().unwrap().values().all(|busy| !busy));
    rig.shows("inference_objective_running_requests{model_name=\"target\"} 0");
}
