//! Every constant of [`super::RequiredReplicas`], with the reason for its value. What else was tried stands in `docs/scaling.md`.

use std::time::Duration;

/// Share of its capacity at which a replica is run. With the autoscaler's dead band of 10 % a pool may stand at 0.935, just under the
/// knee where waiting times rise (0.95; 0.85 for very long prompts).
pub const UTILISATION: f64 = 0.85;

/// The quick window of the arrival rate, in seconds: a step shows in it at once.
pub const SHORT_WINDOW: usize = 20;
/// The steady window, in seconds: long enough for a Poisson stream of one request a second to be known to a tenth.
pub const LONG_WINDOW: usize = 120;
/// How many standard deviations the quick window must differ by before it counts: noise alone does so in 5 % of the windows.
pub const SIGMAS: f64 = 2.0;

/// Bins of [`LONG_WINDOW`] that must rise one after the other: three rises are a ramp, a step makes two at most.
pub const TREND_BINS: usize = 4;
/// Share of a bin's standard deviation taken off each rise.
pub const TREND_SIGMA: f64 = 0.5;
/// How much of the smallest rise is carried on; a straight line has 1.
pub const TREND_STEEPER: f64 = 1.5;
/// Most that a trend adds: it is a forecast, and the start time may be long.
pub const TREND_AT_MOST: f64 = 1.3;

/// Seconds of arrivals whose prompts are averaged.
pub const MIX_WINDOW: usize = 30;
/// Arrivals that the mean prompt needs; the window grows until it has them.
pub const MIX_ARRIVALS: f64 = 200.0;
/// Longest window of the mix, in seconds.
pub const MIX_LONGEST: usize = 300;
/// Tokens of an answer before any was seen.
pub const OUTPUT_TOKENS: f64 = 200.0;
/// Answers that a mean of their lengths needs.
pub const OUTPUT_ANSWERS: f64 = 10.0;

/// Seconds in which what waits is to be served. Faster buys pods that come too late.
pub const DRAIN_SECONDS: f64 = 60.0;
/// Most that the drain adds, as a share of the base: a backlog must not become a multiple of the demand.
pub const DRAIN_AT_MOST: f64 = 0.2;
/// Replicas the drain may ask for while none is ready: something must start.
pub const DRAIN_FROM_ZERO: f64 = 1.0;

/// Start times (of the mean) over which the highest level is remembered, less the autoscaler's own window: what takes long to get back
/// is given up late.
pub const HOLD_STARTS: f64 = 1.5;
/// The autoscaler's scale-down window in seconds, which holds by itself.
pub const HOLD_BY_AUTOSCALER: f64 = 300.0;
/// Longest memory in seconds.
pub const HOLD_LONGEST: f64 = 1200.0;

/// How far the level must be past a whole number before a pod is added or removed. The memory is in the pods, so two adapters agree.
pub const ROUNDING: f64 = 0.1;

/// Start time of a pod before any was seen.
pub const START: Duration = Duration::from_secs(300);
/// Starts whose plain mean is taken.
pub const START_MEAN: u32 = 10;
/// Weight of a further start.
pub const START_WEIGHT: f64 = 0.1;
/// A start longer than this is a pod that hung, not one that loads.
pub const START_LONGEST: Duration = Duration::from_secs(3600);

/// A pod just ready is still filling.
pub const BUSY_READY: Duration = Duration::from_secs(30);
/// Seconds for which something must wait: one unlucky burst is no full server.
pub const BUSY_WAITING: f64 = 5.0;
/// KV cache use that counts as full while a picker holds requests back: flow control hides the queue.
pub const BUSY_KV: f64 = 0.72;
/// Running above this multiple of its own mean: filling, not full.
pub const BUSY_GROWING: f64 = 1.15;
/// Time constant of that mean in seconds.
pub const BUSY_MEAN: f64 = 15.0;

/// Busy endpoint-seconds of one sample: prompt tokens come in lumps at the end of a prefill.
pub const SAMPLE_SECONDS: f64 = 30.0;
/// The same, for the very first.
pub const FIRST_SAMPLE_SECONDS: f64 = 10.0;
/// Cost of a prompt token in generated tokens before both are known. 0.2 to 1 made no difference.
pub const PROMPT_SHARE: f64 = 0.5;
/// How much of an error one sample corrects.
pub const LEARNING_RATE: f64 = 0.5;
/// Most that one sample may say a replica does more or less than believed.
pub const LARGEST_CORRECTION: f64 = 2.0;
/// Cheapest and dearest token that is believed, in seconds of a replica: a million tokens a second, and one in ten seconds.
pub const COST_BOUNDS: (f64, f64) = (1e-7, 10.0);
/// Window of means over endpoints, in seconds.
pub const MEAN_WINDOW: usize = 60;
/// What costs fall by in an hour of traffic without a busy endpoint: a capacity learned too low is found out.
pub const CREEP_PER_HOUR: f64 = 0.05;
/// Most that they fall by without evidence.
pub const CREEP_AT_MOST: f64 = 0.5;

/// Seconds without anything before the level is 0.
pub const IDLE_SECONDS: f64 = 60.0;
/// Seconds after a start of this process in which it asks for no fewer than there are: its windows are not full.
pub const SETTLE_SECONDS: f64 = 120.0;
/// A longer pause than this between two turns is a gap, from which nothing is learned.
pub const GAP_SECONDS: f64 = 3.0;
/// How long the last level stands in for one that cannot be computed; no value of the API may be older.
pub const OLDEST: Duration = Duration::from_secs(5);
/// Share of the ready endpoints that must be readable.
pub const COVERAGE: f64 = 0.5;

/// Seconds for which every endpoint must have requests waiting before one replica more is asked for, whatever was learned.
pub const NET_SECONDS: f64 = 30.0;
/// Mean running requests from which an unlearned pool counts as full: half of vLLM's default of 256.
pub const COLD_RUNNING: f64 = 128.0;
/// Mean KV cache use from which an unlearned pool counts as full.
pub const COLD_KV: f64 = 0.6;

/// Length of a bin of the daily profile in seconds.
pub const DAY_BIN_SECONDS: u64 = 300;
/// Bins of a day.
pub const DAY_BINS: usize = 288;
/// Whole days that are kept. Of three the second highest counts: one odd day neither adds nor takes away.
pub const DAYS: usize = 3;
/// How far ahead the day is looked up, in start times: nine of ten pods are ready after 1.4 of the mean.
pub const AHEAD_STARTS: f64 = 1.5;
/// Seconds added to that, for the autoscaler's turn and the endpoint to be found.
pub const AHEAD_SECONDS: f64 = 60.0;
/// Seconds over which today is compared with the days before.
pub const FOLLOWS_SECONDS: u64 = 1800;
/// Share of their demand that today must have had to be such a day.
pub const FOLLOWS: f64 = 0.5;
/// What a time of day must have needed, in replicas, for an idle pool not to go to zero.
pub const NOTHING: f64 = 0.02;
/// Most spare replicas that can be asked for.
pub const MOST_SPARES: u32 = 1000;
/// Most replicas that are ever asked for.
pub const MOST_REPLICAS: f64 = 1_000_000.0;
