//! The level as a whole: what it depends on, what it does not, and what it says when it does not know.

use proptest::prelude::*;

use super::*;

/// A pool whose every figure is at hand: 22.5 requests of 512 + 200 tokens a second fill a replica.
struct Pool {
    now: f64,
    rate: f64,
    ready: u32,
    pending: u32,
    waiting: f64,
    running: f64,
    held: f64,
    arrived: f64,
    served: f64,
    counted: bool,
    readable: u32,
    ready_for: f64,
}

const PROMPT: f64 = 512.0;
const OUTPUT: f64 = 200.0;
const TRUE_COSTS: Costs = Costs { prompt: 5e-5, token: 9.4e-5 };

impl Pool {
    fn new(rate: f64, ready: u32) -> Self {
        Self {
            now: 1_000_000.0,
            rate,
            ready,
            pending: 0,
            waiting: 0.0,
            running: 40.0,
            held: 0.0,
            arrived: 0.0,
            served: 0.0,
            counted: true,
            readable: ready,
            ready_for: 1000.0,
        }
    }

    fn second(&mut self) -> Second {
        self.after(1.0)
    }

    fn after(&mut self, seconds: f64) -> Second {
        self.now += seconds;
        self.ready_for += seconds;
        self.arrived += self.rate * seconds;
        // No replica does more than it can.
        let capacity = f64::from(self.ready) / TRUE_COSTS.work(PROMPT, OUTPUT);
        self.served += self.rate.min(capacity) * seconds;
        let each = self.served / f64::from(self.ready.max(1));
        let load = Load {
            running: self.running,
            waiting: self.waiting / f64::from(self.ready.max(1)),
            kv: 0.3,
            prompt_tokens: Some(each * PROMPT),
            generated_tokens: Some(each * OUTPUT),
            first_tokens: Some(each),
            completed: Some(each),
        };
        let endpoint = |id: u32| Endpoint {
            id: u64::from(id),
            ready_for: Duration::from_secs_f64(self.ready_for),
            load: (id < self.readable).then_some(load),
        };
        let counted = |value: f64| self.counted.then_some(value);
        let picker =
            Picker { id: 7, held: self.held, arrivals: counted(self.arrived), prompt_tokens: counted(self.arrived * PROMPT) };
        Second {
            now: Duration::from_secs_f64(self.now),
            pickers: Pickers::Read(vec![picker]),
            endpoints: Some((0..self.ready).map(endpoint).collect()),
            pending: self.pending,
            started: Vec::new(),
        }
    }

    fn run(&mut self, required: &mut RequiredReplicas, seconds: u32) -> Level {
        let mut level = Level::Unknown(Cause::FirstMeasurement);
        for _ in 0..seconds {
            level = required.turn(&self.second());
        }
        level
    }
}

fn taught() -> RequiredReplicas {
    let mut required = RequiredReplicas::new("a", Options::default());
    let mut learned = required.learned();
    learned.seconds_per_prompt_token = Some(TRUE_COSTS.prompt);
    learned.seconds_per_generated_token = Some(TRUE_COSTS.token);
    learned.start_seconds = Some(200.0);
    learned.starts = 20;
    required.restore(&learned).unwrap();
    required
}

fn known(level: Level) -> Known {
    match level {
        Level::Known(known) => known,
        Level::Unknown(cause) => panic!("{cause}"),
    }
}

#[test]
fn the_first_turn_is_unknown_and_never_zero() {
    let mut pool = Pool::new(90.0, 4);
    let mut required = taught();
    assert_eq!(required.turn(&pool.second()), Level::Unknown(Cause::FirstMeasurement));
    assert!(required.turn(&pool.second()).replicas().unwrap() >= 4);
}

#[test]
fn the_level_is_what_arrives_over_what_a_replica_can_do() {
    // Four full replicas' worth, run at 85 %: 4.7.
    let level = known(Pool::new(90.0, 4).run(&mut taught(), 600));
    assert_eq!(level.replicas, 5, "{level}");
    assert!((level.base - 4.0 / 0.85).abs() < 0.05, "{level}");
    assert_eq!(level.basis, Basis::Full);
}

#[test]
fn pods_that_load_do_not_raise_it() {
    let mut pool = Pool::new(40.0, 2);
    let mut required = taught();
    pool.run(&mut required, 300);
    pool.rate = 90.0;
    pool.run(&mut required, 20);
    pool.pending = 3;
    // Eight minutes in which the queue grows by two requests out of three.
    for second in 0..480 {
        pool.waiting = f64::from(second) * 60.0;
        let level = known(required.turn(&pool.second()));
        assert!((5..=6).contains(&level.replicas), "{second}: {level}");
    }
}

#[test]
fn an_empty_pool_with_held_requests_gets_its_number_at_once() {
    let mut pool = Pool::new(0.0, 0);
    pool.running = 0.0;
    let mut required = taught();
    assert_eq!(pool.run(&mut required, 200).replicas(), Some(0));
    pool.rate = 45.0;
    for _ in 0..15 {
        pool.held += 45.0;
        required.turn(&pool.second());
    }
    let level = known(required.turn(&pool.second()));
    assert!((2..=4).contains(&level.replicas), "{level}");
}

#[test]
fn a_restart_wakes_nobody_at_zero() {
    let mut pool = Pool::new(0.0, 0);
    pool.running = 0.0;
    let mut required = taught();
    required.turn(&pool.second());
    for _ in 0..100 {
        assert_eq!(required.turn(&pool.second()).replicas(), Some(0));
    }
}

#[test]
fn zero_needs_a_quiet_minute_and_every_endpoint() {
    let mut pool = Pool::new(0.0, 3);
    pool.running = 0.0;
    let mut required = taught();
    pool.run(&mut required, 130);
    let level = known(required.turn(&pool.second()));
    assert!(level.idle && level.replicas == 0, "{level}");
    pool.readable = 2;
    assert_eq!(pool.run(&mut required, 100).replicas(), Some(1));
}

#[test]
fn a_restart_asks_for_no_fewer_than_there_are() {
    let mut pool = Pool::new(22.5, 6);
    let mut required = taught();
    for second in 0..110 {
        if let Level::Known(level) = required.turn(&pool.second()) {
            assert!(level.replicas >= 6, "{second}: {level}");
        }
    }
    assert!(pool.run(&mut required, 60).replicas().unwrap() < 6);
}

#[test]
fn what_is_not_known_is_said_after_five_seconds() {
    let breaks: [(fn(&mut Second), Cause); 4] = [
        (|second| second.endpoints = None, Cause::NoTopology),
        (|second| second.pickers = Pickers::Unreadable, Cause::Pickers),
        (
            |second| second.endpoints.as_mut().unwrap().iter_mut().skip(1).for_each(|endpoint| endpoint.load = None),
            Cause::Coverage { ready: 4, readable: 1 },
        ),
        (
            |second| second.endpoints.as_mut().unwrap()[0].load.as_mut().unwrap().running = f64::NAN,
            Cause::Coverage { ready: 4, readable: 3 },
        ),
    ];
    for (break_it, cause) in breaks {
        let mut pool = Pool::new(90.0, 4);
        let mut required = taught();
        let before = pool.run(&mut required, 300);
        for elapsed in 1..=8 {
            let mut second = pool.second();
            break_it(&mut second);
            let level = required.turn(&second);
            if elapsed <= 5 {
                assert_eq!(level, before, "{elapsed} s");
            } else {
                assert_eq!(level, Level::Unknown(cause), "{elapsed} s");
            }
        }
        // Back again: what came meanwhile is spread over the gap, and no peak.
        let level = known(required.turn(&pool.second()));
        assert_eq!(level.replicas, 5, "{level}");
    }
}

#[test]
fn servers_without_a_count_of_first_tokens_tell_no_rate() {
    let mut required = taught();
    let mut pool = Pool::new(90.0, 4);
    pool.counted = false;
    let mut second = pool.second();
    let mut level = Level::Unknown(Cause::NoTopology);
    for _ in 0..3 {
        for endpoint in second.endpoints.as_mut().unwrap() {
            endpoint.load.as_mut().unwrap().first_tokens = None;
        }
        level = required.turn(&second);
        second = pool.second();
    }
    assert_eq!(level, Level::Unknown(Cause::Arrivals));
}

#[test]
fn without_a_picker_the_servers_tell_and_it_says_so() {
    let mut pool = Pool::new(90.0, 4);
    pool.counted = false;
    let level = known(pool.run(&mut taught(), 600));
    assert_eq!((level.replicas, level.basis), (5, Basis::ServersOnly));
    assert!(level.to_string().ends_with("arrivals seen at the servers only"), "{level}");
}

#[test]
fn nothing_learned_never_asks_for_more_than_there_are_but_for_the_net() {
    let mut pool = Pool::new(90.0, 4);
    let mut required = RequiredReplicas::new("a", Options::default());
    let level = known(pool.run(&mut required, 600));
    assert_eq!((level.replicas, level.basis), (4, Basis::CostsUnknown));
    pool.running = 200.0;
    let level = known(pool.run(&mut required, 40));
    assert!(level.net && level.replicas == 5, "{level}");
}

#[test]
fn when_every_endpoint_waits_one_more_is_asked_for() {
    let mut pool = Pool::new(22.5, 4);
    let mut required = taught();
    pool.run(&mut required, 300);
    pool.waiting = 40.0;
    assert!(known(pool.run(&mut required, 29)).replicas < 5);
    let level = known(pool.run(&mut required, 10));
    assert!(level.net && level.replicas == 5, "{level}");
}

#[test]
fn full_replicas_teach_the_cost_of_a_request_and_gaps_teach_nothing() {
    let mut required = RequiredReplicas::new("a", Options::default());
    let mut pool = Pool::new(4.0 / TRUE_COSTS.work(PROMPT, OUTPUT), 4);
    pool.run(&mut required, 60);
    assert_eq!(required.learned().samples, 0, "nobody waited");
    pool.waiting = 80.0;
    for _ in 0..20 {
        required.turn(&pool.after(4.0));
    }
    assert_eq!(required.learned().samples, 0, "only gaps");
    pool.run(&mut required, 120);
    let costs = required.learned().costs().unwrap();
    let ratio = costs.work(PROMPT, OUTPUT) / TRUE_COSTS.work(PROMPT, OUTPUT);
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
    required.reset();
    let learned = required.learned();
    assert_eq!((learned.costs(), learned.samples, learned.starts), (None, 0, 0));
}

#[test]
fn spares_are_on_top_but_not_at_zero() {
    let mut required = RequiredReplicas::new("a", Options { spares: 2, ..Options::default() });
    required.restore(&taught().learned()).unwrap();
    let mut pool = Pool::new(90.0, 7);
    assert_eq!(pool.run(&mut required, 600).replicas(), Some(7));
    (pool.rate, pool.running) = (0.0, 0.0);
    assert_eq!(pool.run(&mut required, 300).replicas(), Some(0));
}

#[test]
fn what_was_learned_survives_as_json() {
    let mut required = taught();
    let mut pool = Pool::new(4.0 / TRUE_COSTS.work(PROMPT, OUTPUT), 4);
    pool.waiting = 80.0;
    pool.run(&mut required, 300);
    let mut second = pool.second();
    second.started = vec![Duration::from_secs(100)];
    required.turn(&second);
    let learned = required.learned();
    let text = serde_json::to_string(&learned).unwrap();
    assert!(text.contains("\"secondsPerPromptToken\"") && text.len() < 1000, "{text}");
    let mut other = RequiredReplicas::new("a", Options::default());
    other.restore(&serde_json::from_str(&text).unwrap()).unwrap();
    let again = other.learned();
    // The last digit of a number may be lost in writing.
    let (kept, costs) = (again.costs().unwrap(), learned.costs().unwrap());
    assert!((kept.prompt / costs.prompt - 1.0).abs() < 1e-12 && (kept.token / costs.token - 1.0).abs() < 1e-12);
    assert_eq!((again.samples, again.starts, again.start_seconds), (learned.samples, 21, learned.start_seconds));
}

#[test]
fn a_document_that_cannot_be_is_refused_by_field_and_changes_nothing() {
    let good = taught().learned();
    let broken: [(&str, fn(&mut Learned)); 8] = [
        ("version 9", |learned| learned.version = 9),
        ("for b, the servers are a", |learned| learned.fingerprint = "b".to_owned()),
        ("secondsPerPromptToken = NaN", |learned| learned.seconds_per_prompt_token = Some(f64::NAN)),
        ("secondsPerGeneratedToken = -1", |learned| learned.seconds_per_generated_token = Some(-1.0)),
        ("only one of", |learned| learned.seconds_per_generated_token = None),
        ("startSeconds = 1000000", |learned| learned.start_seconds = Some(1e6)),
        ("outputTokens = inf", |learned| learned.output_tokens = f64::INFINITY),
        ("1 days", |learned| learned.days = vec![Day { day: 1, tokens: vec![None; 3] }]),
    ];
    for (message, break_it) in broken {
        let mut learned = good.clone();
        break_it(&mut learned);
        let mut required = RequiredReplicas::new("a", Options::default());
        let before = required.learned();
        let error = required.restore(&learned).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
        assert_eq!(required.learned(), before);
    }
    assert!(serde_json::from_str::<Learned>("{\"version\":1,\"surprise\":2}").is_err());
}

#[test]
fn the_daily_hour_is_met_ahead_of_time() {
    let mut learned = taught().learned();
    // Two days that needed eight replicas from 13:50 on; the pool's clock begins at 13:46:40.
    let mut tokens = vec![Some((11_520, 4500)); constants::DAY_BINS];
    for entry in tokens.iter_mut().skip(13 * 12 + 10).take(12) {
        *entry = Some((8 * 11_520, 8 * 4500));
    }
    learned.days = vec![Day { day: 9, tokens: tokens.clone() }, Day { day: 10, tokens }];
    let mut required = RequiredReplicas::new("a", Options { daily: true, ..Options::default() });
    required.restore(&learned).unwrap();
    let level = known(Pool::new(22.5, 2).run(&mut required, 60));
    assert!(level.replicas >= 9 && level.daily > 9.0 && level.base < 1.5, "{level}");
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0_f64..1e4, 1 => Just(0.0), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(-1.0), 1 => Just(1e300)]
}

fn any_second() -> impl Strategy<Value = (f64, Second)> {
    let load = (number(), number(), number(), proptest::array::uniform4(proptest::option::of(number())));
    let load = load.prop_map(|(running, waiting, kv, [prompt, generated, first, completed])| Load {
        running,
        waiting,
        kv,
        prompt_tokens: prompt,
        generated_tokens: generated,
        first_tokens: first,
        completed,
    });
    let endpoint = (0_u64..4, 0_u64..1000, proptest::option::of(load)).prop_map(|(id, ready, load)| Endpoint {
        id,
        ready_for: Duration::from_secs(ready),
        load,
    });
    let picker = (0_u64..3, number(), proptest::option::of(number()), proptest::option::of(number()))
        .prop_map(|(id, held, arrivals, prompt_tokens)| Picker { id, held, arrivals, prompt_tokens });
    let pickers = prop_oneof![
        Just(Pickers::None),
        Just(Pickers::Unreadable),
        proptest::collection::vec(picker, 0..3).prop_map(Pickers::Read)
    ];
    let endpoints = proptest::option::weighted(0.9, proptest::collection::vec(endpoint, 0..4));
    let pause = prop_oneof![8 => Just(1.0), 1 => 0.0_f64..10.0, 1 => 0.0_f64..1e6];
    (pause, pickers, endpoints, any::<u32>(), proptest::collection::vec(0_u64..10_000_000, 0..2)).prop_map(
        |(pause, pickers, endpoints, pending, started)| {
            let started = started.into_iter().map(Duration::from_millis).collect();
            (pause, Second { now: Duration::ZERO, pickers, endpoints, pending, started })
        },
    )
}

proptest! {
    #[test]
    fn no_input_breaks_it_and_what_it_learned_can_always_be_restored(seconds in proptest::collection::vec(any_second(), 1..120)) {
        let mut required = RequiredReplicas::new("a", Options { daily: true, ..Options::default() });
        let mut now = 0.0;
        for (pause, mut second) in seconds {
            now += pause;
            second.now = Duration::from_secs_f64(now);
            if let Level::Known(known) = required.turn(&second) {
                for value in [known.base, known.drain, known.daily, known.held, known.rate.expected] {
                    prop_assert!(value.is_finite() && value >= 0.0, "{known:?}");
                }
            }
        }
        let mut other = RequiredReplicas::new("a", Options::default());
        prop_assert_eq!(other.restore(&required.learned()), Ok(()));
    }

    /// A level, not a backlog: whatever waits, it stays within the drain's fifth of what arrives, and the net's one more.
    #[test]
    fn whatever_waits_the_level_is_bounded(
        waiting in proptest::collection::vec(0.0_f64..1e9, 60),
        held in 0.0_f64..1e9,
        rate in 23.0_f64..500.0,
        share in 0.0_f64..1.0,
        pending in 0_u32..30,
    ) {
        // Requests that wait for long do so at servers that are full.
        let ready = (share * rate * TRUE_COSTS.work(PROMPT, OUTPUT)).floor().max(1.0) as u32;
        let mut pool = Pool::new(rate, ready);
        let mut required = taught();
        pool.run(&mut required, 300);
        (pool.pending, pool.held) = (pending, held);
        // A step of the costs that are learned on the way is some percent; a pod that is there stays within the rounding.
        let most = 1.05 * rate * TRUE_COSTS.work(PROMPT, OUTPUT) / UTILISATION * 1.2 + constants::ROUNDING;
        for waits in waiting {
            pool.waiting = waits;
            let level = known(required.turn(&pool.second()));
            let bound = (most.ceil() as u32 + 1).max(ready + 1);
            prop_assert!(level.replicas <= bound, "{} > {}: {}", level.replicas, bound, level);
        }
    }
}
