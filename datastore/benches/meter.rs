//! What a picker notes of its requests: one meter behind one lock, beside one for each of eight shards.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::time::Instant;
use weir_datastore::latency::{Latency, Meter};

/// Requests are shared out by their endpoints.
const SHARDS: usize = 8;

/// The time that `threads` threads take to note `each` values, each of them.
fn noted(meters: &[Mutex<Meter>], threads: usize, each: u64) -> Duration {
    let model: Arc<str> = "meta-llama/Llama-3.1-8B-Instruct".into();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let model = &model;
            scope.spawn(move || {
                for index in 0..each {
                    let meter = &meters[(thread + index as usize) % meters.len()];
                    let seconds = 0.05 + (index % 977) as f64 / 1000.0;
                    let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
                    meter.observe(model, Latency::TimeToFirstToken, black_box(seconds));
                }
            });
        }
    });
    began.elapsed()
}

fn meter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("latency noted");
    for threads in [1, 2, 4] {
        for (name, shards) in [("one lock", 1), ("eight shards", SHARDS)] {
            let meters: Vec<_> = (0..shards).map(|_| Mutex::new(Meter::new(Instant::now()))).collect();
            group.bench_function(format!("{name}, {threads} threads"), |bencher| {
                // The time of one value of one thread: with as many cores as threads and no waiting, the same for all.
                bencher.iter_custom(|each| noted(&meters, threads, each));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, meter);
criterion_main!(benches);
