use weir_hpa::required::{Learned, Options, RequiredReplicas};
use weir_hpa::{HpaSpec, MetricSpec, Target};

use super::*;
use crate::load::{Arrival, Shape};
use crate::table::{Row, Variant, learn};

fn world(shape: Shape, size: &ModelSize, scale: f64) -> (Load, Needed) {
    let load = shape.draw(size, scale, 11);
    let needed = Needed::of(&load, size);
    (load, needed)
}

fn outcome(size: &ModelSize, load: &Load, needed: &Needed, policy: &Policy, start: f64) -> Outcome {
    run(&Scenario::new(size, load, start, 4), policy, needed).unwrap()
}

fn nothing_learned() -> Learned {
    RequiredReplicas::new("what-if", Options::default()).learned()
}

fn row(name: &str) -> Row {
    Row::ALL.into_iter().find(|row| row.name() == name).unwrap()
}

#[test]
fn a_run_is_the_same_each_time_and_counts_every_request_once() {
    let size = ModelSize::large();
    let (load, needed) = world(Shape::Step, &size, 0.2);
    for row in Row::ALL {
        let policy = row.policy(Shape::Step, needed.peak, &nothing_learned(), &[]);
        let (first, again) = (outcome(&size, &load, &needed, &policy, 300.0), outcome(&size, &load, &needed, &policy, 300.0));
        assert_eq!((first.in_slo, first.lost, first.gpu_hours), (again.in_slo, again.lost, again.gpu_hours), "{}", row.name());
        assert!(first.in_slo + first.lost <= first.requests, "{}", row.name());
        assert!(first.requests <= load.arrivals.len() as u64 && first.requests + 100 >= load.arrivals.len() as u64);
        let by_stretch: u64 = first.series.iter().map(|stretch| u64::from(stretch.arrived)).sum();
        assert_eq!(by_stretch, load.arrivals.len() as u64);
    }
}

#[test]
fn a_static_peak_and_one_who_knows_the_load_serve_all() {
    for size in [ModelSize::small(), ModelSize::large()] {
        let (load, needed) = world(Shape::Step, &size, 0.5);
        let of = |row: Row| outcome(&size, &load, &needed, &row.policy(Shape::Step, needed.peak, &nothing_learned(), &[]), 300.0);
        let (fixed, knows) = (of(Row::Static), of(Row::Clairvoyant));
        assert!(fixed.in_slo_share() > 0.99 && knows.in_slo_share() > 0.99, "{} {}", fixed.in_slo_share(), knows.in_slo_share());
        assert!(knows.gpu_hours < fixed.gpu_hours && fixed.overshoot() == 1.0);
        let hours = f64::from(needed.peak * size.profile.gpus) * load.seconds / 3600.0;
        assert!((fixed.gpu_hours / hours - 1.0).abs() < 1e-9, "{} {hours}", fixed.gpu_hours);
    }
}

/// The claim: pods that load for minutes raise a queue's target fourfold, and the level hardly.
#[test]
fn a_level_does_not_overshoot_where_a_queue_does() {
    let size = ModelSize::small();
    let (load, needed) = world(Shape::Step, &size, 0.5);
    let learned = learn(&size, 480.0).unwrap();
    let level = row("**required, kept**").policy(Shape::Step, needed.peak, &learned, &[]);
    let queue = row("queue total, Avg 4").policy(Shape::Step, needed.peak, &learned, &[]);
    let (level, queue) = (outcome(&size, &load, &needed, &level, 480.0), outcome(&size, &load, &needed, &queue, 480.0));
    assert!(level.overshoot() <= 1.5, "{}", level.overshoot());
    assert!(queue.overshoot() >= 3.0, "{}", queue.overshoot());
    assert!(level.in_slo > queue.in_slo && level.gpu_hours * 2.0 < queue.gpu_hours);
    let cost = learned.costs().unwrap().work(size.prompt_tokens, size.output_tokens) * size.full_rate();
    assert!((cost - 1.0).abs() < 0.1, "a request costs {cost} of what it does");
}

#[test]
fn from_zero_wakes_and_to_zero_ends_there() {
    let size = ModelSize::small();
    for shape in [Shape::FromZero, Shape::ToZero] {
        let (load, needed) = world(shape, &size, 0.5);
        let policy = Row::Required("r", Variant { kept: true, ..Variant::default() });
        let policy = policy.policy(shape, needed.peak, &learn(&size, 120.0).unwrap(), &[]);
        let outcome = outcome(&size, &load, &needed, &policy, 120.0);
        let (first, last) = (&outcome.series[0], &outcome.series[outcome.series.len() - 1]);
        let zero = if shape == Shape::FromZero { first } else { last };
        assert_eq!((zero.present, zero.ready), (0, 0), "{}", shape.name());
        assert!(outcome.in_slo_share() > 0.85, "{} {}", shape.name(), outcome.in_slo_share());
    }
}

#[test]
fn a_metric_that_is_not_simulated_is_named_with_those_that_are() {
    let size = ModelSize::small();
    let load = Load { name: "t".to_owned(), seconds: 60.0, arrivals: vec![Arrival { at: 1.0, prompt: 10, output: 10 }] };
    let needed = Needed::of(&load, &size);
    let spec = HpaSpec::new(1, 4, vec![MetricSpec::external("my_metric", Target::Value(1000))]);
    let policy = Policy { name: "h".to_owned(), scaler: Scaler::Hpa(Box::new(spec), Box::default()), expire: None };
    let scenario = Scenario::new(&size, &load, 60.0, 1);
    let error = run(&scenario, &policy, &needed).unwrap_err().to_string();
    assert!(error.starts_with("metric my_metric is not one") && error.contains("inference_pool_required_replicas"), "{error}");
}

#[test]
fn a_request_refused_early_makes_room_for_those_in_time() {
    let size = ModelSize::small();
    let (load, needed) = world(Shape::Flash, &size, 0.5);
    let learned = learn(&size, 300.0).unwrap();
    let of = |name: &str| outcome(&size, &load, &needed, &row(name).policy(Shape::Flash, needed.peak, &learned, &[]), 300.0);
    let (plain, expiry) = (of("**required, kept**"), of("required + expiry"));
    assert!(expiry.in_slo_share() > plain.in_slo_share() + 0.02, "{} {}", expiry.in_slo_share(), plain.in_slo_share());
}
