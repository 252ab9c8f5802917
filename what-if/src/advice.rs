//! Which of several policies to take, and why.

use crate::outcome::Outcome;

/// Points of requests in the service level that are one and the same.
const ALIKE: f64 = 0.005;

/// The best of the outcomes: nobody else serves clearly more in time, and of those alike it is the cheapest. `None` without any.
pub fn best(outcomes: &[Outcome]) -> Option<usize> {
    let most = outcomes.iter().map(Outcome::in_slo_share).fold(0.0, f64::max);
    let alike = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.in_slo_share() >= most - ALIKE);
    alike.min_by(|(_, a), (_, b)| a.gpu_hours.total_cmp(&b.gpu_hours)).map(|(index, _)| index)
}

/// The recommendation in a few sentences. `outcomes` are those to choose from.
pub fn recommend(outcomes: &[Outcome], static_peak: &Outcome, clairvoyant: &Outcome) -> String {
    let Some(index) = best(outcomes) else { return "Nothing to choose from.".to_owned() };
    let chosen = &outcomes[index];
    let to_static = chosen.gpu_hours / static_peak.gpu_hours;
    let mut text = format!(
        "Take {}: {:.1} % of the requests have their first token within {} s, for {:.0} % of the GPU hours of a static peak of {}.",
        chosen.name,
        100.0 * chosen.in_slo_share(),
        chosen.slo,
        100.0 * to_static,
        static_peak.peak,
    );
    let others = outcomes.iter().enumerate().filter(|(other, _)| *other != index);
    for (_, other) in others {
        let points = 100.0 * (chosen.in_slo_share() - other.in_slo_share());
        let hours = other.gpu_hours / chosen.gpu_hours;
        text.push_str(&format!(
            "\n  {}: {:.1} points {}, {:.2} times the GPU hours, {} pods at most where {} were needed.",
            other.name,
            points.abs(),
            if points >= 0.0 { "less" } else { "more" },
            hours,
            other.peak,
            other.needed_peak,
        ));
    }
    for outcome in outcomes {
        if let Some(most) = outcome.most_allowed.filter(|most| *most < outcome.needed_peak) {
            let needed = outcome.needed_peak;
            text.push_str(&format!("\n  {}: maxReplicas is {most}, and {needed} are needed at the peak: raise it.", outcome.name));
        }
    }
    text.push_str(&why_not_more(chosen, clairvoyant));
    if to_static >= 1.0 && chosen.in_slo_share() <= static_peak.in_slo_share() {
        text.push_str("\n  A fixed number of replicas is no dearer and serves no fewer: do not scale this load.");
    }
    text
}

/// What the best one misses, and what would help.
fn why_not_more(chosen: &Outcome, clairvoyant: &Outcome) -> String {
    let missed = clairvoyant.in_slo_share() - chosen.in_slo_share();
    if missed < ALIKE {
        return "\n  One who knows the load beforehand serves no more.".to_owned();
    }
    if chosen.short_seconds == 0 {
        return "\n  Pods were never short: what is late is late at the servers.".to_owned();
    }
    let starting = f64::from(chosen.short_while_starting) / f64::from(chosen.short_seconds);
    let minutes = f64::from(chosen.short_seconds) / 60.0;
    let capped = chosen.most_allowed.is_some_and(|most| most < chosen.needed_peak);
    let what = if capped {
        "fewer were allowed or asked for than needed"
    } else if starting >= 0.5 {
        "enough pods had been asked for and were still starting: quicker starts, a spare, or asking ahead of the hour helps, another target \
         does not"
    } else {
        "too few had been asked for: a lower target or a longer scale-down window helps"
    };
    format!(
        "\n  One who knows the load beforehand serves {:.1} points more. Pods were short for {minutes:.0} min; in {:.0} % of that time {what}.",
        100.0 * missed,
        100.0 * if starting >= 0.5 && !capped { starting } else { 1.0 - starting },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Shape;
    use crate::model_size::ModelSize;
    use crate::run::{Needed, Policy, Scaler, Scenario, run};
    use weir_hpa::{HpaSpec, MetricSpec, Target};

    fn outcomes(max: u32) -> (Vec<Outcome>, Outcome, Outcome) {
        let size = ModelSize::large();
        let load = Shape::Step.draw(&size, 0.3, 2);
        let needed = Needed::of(&load, &size);
        let scenario = Scenario::new(&size, &load, 120.0, 1);
        let of =
            |name: &str, scaler: Scaler| run(&scenario, &Policy { name: name.to_owned(), scaler, expire: None }, &needed).unwrap();
        let hpa = |metric: &str, target: Target| {
            Scaler::Hpa(Box::new(HpaSpec::new(1, max, vec![MetricSpec::external(metric, target)])), Box::default())
        };
        let tried = vec![
            of("kv", hpa("inference_pool_average_kv_cache_utilization", Target::Value(900))),
            of("running", hpa("inference_pool_total_running_requests", Target::AverageValue(40_000))),
        ];
        (tried, of("static", Scaler::StaticPeak), of("clairvoyant", Scaler::Clairvoyant))
    }

    #[test]
    fn the_one_that_serves_more_is_taken_and_the_others_are_named() {
        let (tried, fixed, knows) = outcomes(12);
        let text = recommend(&tried, &fixed, &knows);
        assert_eq!(best(&tried), Some(1), "{text}");
        assert!(text.starts_with("Take running: ") && text.contains("\n  kv: ") && !text.contains("maxReplicas"), "{text}");
    }

    #[test]
    fn a_maximum_below_the_need_is_told() {
        let (tried, fixed, knows) = outcomes(1);
        let text = recommend(&tried, &fixed, &knows);
        assert!(
            text.contains(&format!("running: maxReplicas is 1, and {} are needed at the peak: raise it.", fixed.peak)),
            "{text}"
        );
    }

    #[test]
    fn without_anything_to_choose_from_it_says_so() {
        let (_, fixed, knows) = outcomes(1);
        assert_eq!(recommend(&[], &fixed, &knows), "Nothing to choose from.");
    }
}
