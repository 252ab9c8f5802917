//! The table of `docs/scaling.md`: policies × shapes × start times × sizes × seeds.

mod false_alarm;
mod markdown;
mod rows;

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use false_alarm::{FalseAlarm, false_alarms};
pub use markdown::{false_alarm_markdown, markdown};
pub use rows::{EXPIRE, Row, Variant};
use weir_hpa::required::Learned;

use crate::load::Shape;
use crate::model_size::ModelSize;
use crate::policy::PolicyError;
use crate::policy::required::day_of;
use crate::run::{Needed, Scenario, run};

/// Mean start times in seconds.
pub const STARTS: [f64; 3] = [120.0, 300.0, 480.0];
/// Seeds of the days before, and of the run in which costs are learned, apart from those of the table.
const EARLIER_DAYS: [u64; 2] = [1000, 2000];
const LEARNING_SEED: u64 = 3000;

/// One run of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Index into [`Row::ALL`].
    pub row: usize,
    /// Index into [`Shape::ALL`].
    pub shape: usize,
    /// Index into [`STARTS`].
    pub start: usize,
    /// 0: small, 1: large.
    pub size: usize,
    /// The seed.
    pub seed: u64,
    /// Share of requests in the service level.
    pub in_slo: f64,
    /// Share that never had an answer.
    pub lost: f64,
    /// GPU hours over those of the static peak.
    pub to_static: f64,
    /// GPU hours over those of the clairvoyant.
    pub to_clairvoyant: f64,
    /// Most pods over most needed.
    pub overshoot: f64,
    /// Changes of direction within ten minutes.
    pub flaps: u32,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which rows, by index; the first two always run.
    pub rows: Vec<usize>,
    /// Which shapes.
    pub shapes: Vec<Shape>,
    /// How many seeds.
    pub seeds: u64,
    /// How many threads; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { rows: (0..Row::ALL.len()).collect(), shapes: Shape::ALL.to_vec(), seeds: 2, threads: None }
    }
}

/// Runs the table.
///
/// # Errors
/// [`PolicyError`] if a row is no valid HPA.
pub fn cells(plan: &Plan) -> Result<Vec<Cell>, PolicyError> {
    let sizes = [ModelSize::small(), ModelSize::large()];
    let mut learned = Vec::new();
    for size in &sizes {
        learned.push(STARTS.map(|start| learn(size, start)));
    }
    let mut jobs = Vec::new();
    for seed in 1..=plan.seeds {
        for size in 0..sizes.len() {
            jobs.extend(plan.shapes.iter().map(|shape| (*shape, size, seed)));
        }
    }
    // The longest first.
    jobs.sort_by(|a, b| (a.1, b.0.seconds()).partial_cmp(&(b.1, a.0.seconds())).unwrap_or(std::cmp::Ordering::Equal));
    let threads = plan.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((shape, size, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = job(plan, *shape, *size, &sizes[*size], *seed, &learned[*size]);
                    if let Ok(mut results) = results.lock() {
                        results.push(done);
                    }
                }
            });
        }
    });
    let mut cells = Vec::new();
    for result in results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        cells.extend(result?);
    }
    cells.sort_by_key(|cell| (cell.row, cell.shape, cell.start, cell.size, cell.seed));
    Ok(cells)
}

/// What a run with a step teaches, for pools that keep it.
///
/// # Errors
/// [`PolicyError`], which its HPA never has.
pub fn learn(size: &ModelSize, start: f64) -> Result<Learned, PolicyError> {
    let load = Shape::Step.draw(size, 1.0, LEARNING_SEED);
    let needed = Needed::of(&load, size);
    let scenario = Scenario::new(size, &load, start, LEARNING_SEED);
    let empty = weir_hpa::required::RequiredReplicas::new("what-if", weir_hpa::required::Options::default()).learned();
    let cold = Row::Required("", Variant::default()).policy(Shape::Step, needed.peak, &empty, &[]);
    Ok(run(&scenario, &cold, &needed)?.learned.unwrap_or(empty))
}

fn job(
    plan: &Plan,
    shape: Shape,
    size_index: usize,
    size: &ModelSize,
    seed: u64,
    learned: &[Result<Learned, PolicyError>; 3],
) -> Result<Vec<Cell>, PolicyError> {
    let load = shape.draw(size, 1.0, seed);
    let needed = Needed::of(&load, size);
    let days: Vec<_> =
        EARLIER_DAYS.iter().zip([2, 1]).map(|(days_seed, ago)| day_of(&shape.draw(size, 1.0, seed + days_seed), ago)).collect();
    let mut cells = Vec::new();
    for (start_index, start) in STARTS.into_iter().enumerate() {
        let learned = learned[start_index].as_ref().map_err(Clone::clone)?;
        let scenario = Scenario::new(size, &load, start, seed);
        let (mut of_static, mut of_clairvoyant) = (1.0, 1.0);
        for (index, row) in Row::ALL.iter().enumerate() {
            if index > 1 && !plan.rows.contains(&index) {
                continue;
            }
            let outcome = run(&scenario, &row.policy(shape, needed.peak, learned, &days), &needed)?;
            match row {
                Row::Static => of_static = outcome.gpu_hours,
                Row::Clairvoyant => of_clairvoyant = outcome.gpu_hours,
                _ => {}
            }
            if *row == Row::Clairvoyant {
                // The static row came before the measure was known.
                if let Some(Cell { to_clairvoyant, .. }) = cells.last_mut() {
                    *to_clairvoyant = of_static / of_clairvoyant;
                }
            }
            cells.push(Cell {
                row: index,
                shape: Shape::ALL.iter().position(|known| *known == shape).unwrap_or(0),
                start: start_index,
                size: size_index,
                seed,
                in_slo: outcome.in_slo_share(),
                lost: outcome.lost_share(),
                to_static: outcome.gpu_hours / of_static,
                to_clairvoyant: outcome.gpu_hours / of_clairvoyant,
                overshoot: outcome.overshoot(),
                flaps: outcome.flaps,
            });
        }
    }
    Ok(cells)
}
