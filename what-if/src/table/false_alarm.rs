//! What it costs to ask ahead of an hour that does not come.

use super::{EARLIER_DAYS, Row, STARTS, Variant, learn};
use crate::load::Shape;
use crate::model_size::ModelSize;
use crate::policy::PolicyError;
use crate::policy::required::day_of;
use crate::run::{Needed, Scenario, run};

/// A day unlike the two before: they had the shape, today what it begins with goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalseAlarm {
    /// What the days before had.
    pub shape: Shape,
    /// GPU hours that the daily profile adds, as a share of those of a static peak for the days before; mean over start times, sizes and
    /// seeds.
    pub added: f64,
    /// Share in the service level with it, and without.
    pub in_slo: (f64, f64),
}

/// One for each shape.
///
/// # Errors
/// [`PolicyError`], which these HPAs never have.
pub fn false_alarms(seeds: u64) -> Result<Vec<FalseAlarm>, PolicyError> {
    let mut alarms = Vec::new();
    let mut learned = Vec::new();
    for size in [ModelSize::small(), ModelSize::large()] {
        for start in STARTS {
            learned.push((size.clone(), start, learn(&size, start)?));
        }
    }
    for shape in Shape::ALL {
        let (mut added, mut with, mut without, mut count) = (0.0, 0.0, 0.0, 0.0);
        for (size, start, learned) in &learned {
            for seed in 1..=seeds {
                let load = shape.draw_without(size, 1.0, seed);
                let days: Vec<_> = EARLIER_DAYS
                    .iter()
                    .zip([2, 1])
                    .map(|(earlier, ago)| day_of(&shape.draw(size, 1.0, seed + earlier), ago))
                    .collect();
                let needed = Needed::of(&load, size);
                // It may grow to what the days before needed.
                let most = Needed::of(&shape.draw(size, 1.0, seed), size).peak.max(needed.peak);
                let scenario = Scenario::new(size, &load, *start, seed);
                let of = |daily: bool| {
                    let row = Row::Required("", Variant { kept: true, daily, ..Variant::default() });
                    run(&scenario, &row.policy(shape, most, learned, &days), &needed)
                };
                let (ahead, plain) = (of(true)?, of(false)?);
                with += ahead.in_slo_share();
                without += plain.in_slo_share();
                let of_static = f64::from(most * size.profile.gpus) * load.seconds / 3600.0;
                added += (ahead.gpu_hours - plain.gpu_hours) / of_static;
                count += 1.0;
            }
        }
        alarms.push(FalseAlarm { shape, added: added / count, in_slo: (with / count, without / count) });
    }
    Ok(alarms)
}
