//! The policies of the table.

use weir_hpa::required::{Day, Learned, Options};
use weir_hpa::{Behavior, HpaSpec, MetricSpec, ScalingRules, Target};

use crate::load::Shape;
use crate::policy::RequiredOptions;
use crate::run::{Policy, Scaler};
use crate::sample::Metric;

/// Refusing what has been held for this share of the service level: the rest is for the server's own queue and the prompt.
pub const EXPIRE: f64 = 0.75;
/// Most pods, as a multiple of the peak that is needed.
const MOST: u32 = 4;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    /// As many as the peak needs.
    Static,
    /// One who knows what comes.
    Clairvoyant,
    /// An HPA on metrics: name and target (`true`: `Value`), with its windows up and down.
    Metrics(&'static str, &'static [(Metric, bool, f64)], u32, Option<u32>),
    /// Knative's autoscaler.
    Knative,
    /// An HPA on `required_replicas`.
    Required(&'static str, Variant),
}

/// How `required_replicas` is used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Variant {
    /// Whether it starts with what an earlier run learned.
    pub kept: bool,
    /// Whether only the servers' counters are there.
    pub servers_only: bool,
    /// Whether held requests expire near the service level.
    pub expire: bool,
    /// Whether the days before count, which were alike.
    pub daily: bool,
    /// Spare replicas.
    pub spares: u32,
}

const KEPT: Variant = Variant { kept: true, servers_only: false, expire: false, daily: false, spares: 0 };

impl Row {
    /// All rows in order.
    pub const ALL: [Self; 20] = [
        Self::Static,
        Self::Clairvoyant,
        Self::Metrics("queue mean, Value 5", &[(Metric::AverageQueue, true, 5.0)], 0, None),
        Self::Metrics("queue total, Avg 4", &[(Metric::TotalQueue, false, 4.0)], 0, None),
        Self::Metrics("KV mean, Value 0.7", &[(Metric::AverageKv, true, 0.7)], 0, None),
        Self::Metrics("saturation, Value 0.8", &[(Metric::Saturation, true, 0.8)], 0, None),
        Self::Metrics("running, Avg 16", &[(Metric::TotalRunning, false, 16.0)], 0, None),
        Self::Metrics("running, Avg 64, down 600 s", &[(Metric::TotalRunning, false, 64.0)], 0, Some(600)),
        Self::Metrics("in flight, Avg 64, down 600 s", &[(Metric::TotalInFlight, false, 64.0)], 0, Some(600)),
        Self::Metrics(
            "llm-d pair (queue 1, running 16), up 300 s",
            &[(Metric::TotalQueue, false, 1.0), (Metric::TotalRunning, false, 16.0)],
            300,
            None,
        ),
        Self::Knative,
        Self::Required("required, cold", Variant { kept: false, ..KEPT }),
        Self::Required("**required, kept**", KEPT),
        Self::Required("required, servers' counters only", Variant { servers_only: true, ..KEPT }),
        Self::Required("required + expiry", Variant { expire: true, ..KEPT }),
        Self::Required("required + daily", Variant { daily: true, ..KEPT }),
        Self::Required("**required + expiry + daily**", Variant { expire: true, daily: true, ..KEPT }),
        Self::Required("required + expiry + 1 spare", Variant { expire: true, spares: 1, ..KEPT }),
        Self::Required("required + expiry + 3 spares", Variant { expire: true, spares: 3, ..KEPT }),
        Self::Required("required + expiry + daily + 1 spare", Variant { expire: true, daily: true, spares: 1, ..KEPT }),
    ];

    /// How it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Static => "static peak",
            Self::Clairvoyant => "clairvoyant",
            Self::Knative => "Knative KPA, 70 %",
            Self::Metrics(name, ..) | Self::Required(name, _) => name,
        }
    }

    /// The policy for a load that needs `peak` replicas at most.
    pub fn policy(&self, shape: Shape, peak: u32, learned: &Learned, days: &[Day]) -> Policy {
        let max = MOST * peak;
        let mut expire = None;
        let scaler = match self {
            Self::Static => Scaler::StaticPeak,
            Self::Clairvoyant => Scaler::Clairvoyant,
            Self::Knative => Scaler::Knative { min: u32::from(!shape.has_zero()), max },
            Self::Metrics(_, metrics, up, down) => {
                let sees_held = metrics.iter().any(|(metric, ..)| metric.sees_held());
                // A metric that is 0 without pods could never end that.
                let min = u32::from(!(shape.has_zero() && sees_held));
                Scaler::Hpa(Box::new(spec(metrics, min, max, *up, *down)), Box::default())
            }
            Self::Required(_, variant) => {
                expire = variant.expire.then_some(EXPIRE);
                let mut learned = learned.clone();
                learned.days = if variant.daily { days.to_vec() } else { Vec::new() };
                let options = RequiredOptions {
                    options: Options { daily: variant.daily, spares: variant.spares, ..Options::default() },
                    servers_only: variant.servers_only,
                    learned: variant.kept.then_some(learned),
                };
                let min = u32::from(!shape.has_zero());
                Scaler::Hpa(Box::new(spec(&[(Metric::Required, false, 1.0)], min, max, 0, None)), Box::new(options))
            }
        };
        Policy { name: self.name().to_owned(), scaler, expire }
    }
}

/// An HPA on external metrics with the API server's defaults but for the windows.
fn spec(metrics: &[(Metric, bool, f64)], min: u32, max: u32, up: u32, down: Option<u32>) -> HpaSpec {
    let metrics = metrics.iter().map(|(metric, is_value, target)| {
        let name = Metric::ALL.iter().find(|(_, known)| known == metric).map_or("", |(name, _)| *name);
        let milli = (target * 1000.0).round() as i64;
        MetricSpec::external(name, if *is_value { Target::Value(milli) } else { Target::AverageValue(milli) })
    });
    let mut spec = HpaSpec::new(min, max, metrics.collect());
    let scale_up = ScalingRules { stabilization_window_seconds: Some(up), ..ScalingRules::default_up() };
    let scale_down = ScalingRules { stabilization_window_seconds: down, ..ScalingRules::default_down() };
    spec.behavior = Some(Behavior { scale_up, scale_down });
    spec
}
