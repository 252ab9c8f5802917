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
    let what = if starting >= 0.5 {
        "enough pods had been asked for and were still starting: quicker starts, a spare, or asking ahead of the hour helps, another target \
         does not"
    } else {
        "too few had been asked for: a lower target or a longer scale-down window helps"
    };
    format!(
        "\n  One who knows the load beforehand serves {:.1} points more. Pods were short for {minutes:.0} min; in {:.0} % of that time {what}.",
        100.0 * missed,
        100.0 * if starting >= 0.5 { starting } else { 1.0 - starting },
    )
}
