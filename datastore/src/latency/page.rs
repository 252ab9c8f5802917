//! The histograms on a model server's page.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::{Latency, MOST_MODELS};
use crate::engine::Engine;
use crate::page::{Effort, Format, Labels, PageError, Sample, ScanLimits, Wanted, scan};

/// Buckets of one histogram; text-generation-inference has 35, SGLang 40.
pub(super) const MOST_BUCKETS: usize = 128;
/// Buckets of all histograms of one page: 16 ranks of vLLM have 1,400.
pub(super) const MOST_BUCKETS_IN_ALL: usize = 4096;
/// Samples of a page that are looked at.
const MOST_SAMPLES: usize = 2 * MOST_BUCKETS_IN_ALL;

/// Name of the buckets, what they say, and which of two names for one signal is read: the lowest number on the page.
type Row = (&'static str, Latency, u8);

/// Per request before per gap between tokens: a long answer has hundreds of gaps and would outvote the others.
const VLLM: &[Row] = &[
    ("vllm:time_to_first_token_seconds_bucket", Latency::TimeToFirstToken, 0),
    ("vllm:request_time_per_output_token_seconds_bucket", Latency::TimePerOutputToken, 0),
    ("vllm:inter_token_latency_seconds_bucket", Latency::TimePerOutputToken, 1),
    ("vllm:time_per_output_token_seconds_bucket", Latency::TimePerOutputToken, 2),
    ("vllm:e2e_request_latency_seconds_bucket", Latency::EndToEnd, 0),
    ("vllm:request_queue_time_seconds_bucket", Latency::Queue, 0),
];

const SGLANG: &[Row] = &[
    ("sglang:time_to_first_token_seconds_bucket", Latency::TimeToFirstToken, 0),
    ("sglang:inter_token_latency_seconds_bucket", Latency::TimePerOutputToken, 0),
    ("sglang:e2e_request_latency_seconds_bucket", Latency::EndToEnd, 0),
    ("sglang:queue_time_seconds_bucket", Latency::Queue, 0),
];

const TRTLLM_SERVE: &[Row] = &[
    ("trtllm_time_to_first_token_seconds_bucket", Latency::TimeToFirstToken, 0),
    ("trtllm_time_per_output_token_seconds_bucket", Latency::TimePerOutputToken, 0),
    ("trtllm_e2e_request_latency_seconds_bucket", Latency::EndToEnd, 0),
    ("trtllm_request_queue_time_seconds_bucket", Latency::Queue, 0),
];

/// Triton's vLLM backend has these three of vLLM's.
const TRITON: &[Row] = &[
    ("vllm:time_to_first_token_seconds_bucket", Latency::TimeToFirstToken, 0),
    ("vllm:time_per_output_token_seconds_bucket", Latency::TimePerOutputToken, 0),
    ("vllm:e2e_request_latency_seconds_bucket", Latency::EndToEnd, 0),
];

/// It has no time to first token.
const TGI: &[Row] = &[
    ("tgi_request_mean_time_per_token_duration_bucket", Latency::TimePerOutputToken, 0),
    ("tgi_request_duration_bucket", Latency::EndToEnd, 0),
    ("tgi_request_queue_duration_bucket", Latency::Queue, 0),
];

const LMDEPLOY: &[Row] = &[
    ("lmdeploy:time_to_first_token_seconds_bucket", Latency::TimeToFirstToken, 0),
    ("lmdeploy:time_per_output_token_seconds_bucket", Latency::TimePerOutputToken, 0),
    ("lmdeploy:e2e_request_latency_seconds_bucket", Latency::EndToEnd, 0),
    ("lmdeploy:request_queue_time_seconds_bucket", Latency::Queue, 0),
];

fn rows(engine: Engine) -> &'static [Row] {
    match engine.table() {
        Engine::Vllm | Engine::LlmDInferenceSim => VLLM,
        Engine::Sglang => SGLANG,
        Engine::TrtllmServe => TRTLLM_SERVE,
        Engine::Triton => TRITON,
        Engine::Tgi => TGI,
        Engine::LmDeploy => LMDEPLOY,
        Engine::TritonTensorrtLlm | Engine::LlamaCpp | Engine::Custom => &[],
    }
}

/// Reads the histograms of latencies off the pages of one engine.
#[derive(Debug)]
pub struct LatencyReader {
    engine: Engine,
    rows: &'static [Row],
    wanted: Wanted,
}

/// One histogram of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencySeries {
    /// Equal on every page for the same series.
    pub(super) identity: u64,
    /// The model, where the page names it.
    pub(super) model: Option<Arc<str>>,
    pub(super) signal: Latency,
    /// Upper bounds but for the infinite one, rising.
    pub(super) bounds: Vec<f64>,
    /// How many observations were at most each bound, and in all: since the server's start, never falling from bound to bound.
    pub(super) cumulative: Vec<u64>,
}

/// The histograms of one page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyPage {
    /// Those that can be used.
    pub series: Vec<LatencySeries>,
    /// Those that cannot: NaN or negative counts, counts that fall from bound to bound, no infinite bound, a bound that is no
    /// number, too many buckets or models.
    pub refused: u32,
}

impl LatencyPage {
    /// Whether there was no histogram on the page, good or bad.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.refused == 0
    }
}

impl LatencyReader {
    /// The reader of `engine`'s histograms; none where its pages have none.
    pub fn of(engine: Engine) -> Option<&'static Self> {
        static READERS: [OnceLock<LatencyReader>; Engine::DETECTED.len()] = [const { OnceLock::new() }; Engine::DETECTED.len()];
        let (engine, rows) = (engine.table(), rows(engine));
        let place = Engine::DETECTED.iter().position(|known| *known == engine).filter(|_| !rows.is_empty())?;
        Some(READERS[place].get_or_init(|| Self { engine, rows, wanted: Wanted::new(rows.iter().map(|(name, ..)| *name)) }))
    }

    /// The sample names that a restricted page must be asked for.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|(name, ..)| *name)
    }

    /// The histograms of `page`.
    ///
    /// # Errors
    /// [`PageError`] where the page as a whole cannot be used.
    pub fn read(&self, page: &[u8], format: Format) -> Result<LatencyPage, PageError> {
        let mut samples = Vec::with_capacity(128);
        let limits = ScanLimits { samples: MOST_SAMPLES, ..ScanLimits::default() };
        scan(page, format, &self.wanted, Effort::WantedLines, limits, &mut samples)?;
        let mut preferred = [u8::MAX; Latency::ALL.len()];
        for (_, signal, preference) in samples.iter().filter_map(|sample| self.row(sample)) {
            preferred[*signal as usize] = preferred[*signal as usize].min(*preference);
        }
        let mut places: HashMap<u64, usize> = HashMap::new();
        let mut raw: Vec<Raw<'_>> = Vec::new();
        for sample in &samples {
            let Some((_, signal, preference)) = self.row(sample) else { continue };
            if *preference > preferred[*signal as usize] || !self.counts(&sample.labels, *signal) {
                continue;
            }
            let identity = identity(sample.family, &sample.labels);
            let place = *places.entry(identity).or_insert_with(|| {
                raw.push(Raw { identity, signal: *signal, labels: sample.labels, buckets: Vec::new(), broken: false });
                raw.len() - 1
            });
            raw[place].add(sample);
        }
        Ok(self.settled(raw))
    }

    fn row(&self, sample: &Sample<'_>) -> Option<&'static Row> {
        self.rows.get(usize::from(sample.family))
    }

    /// Whether a series counts: of SGLang, only those of one rank and of all priorities, and for the first token only of streaming
    /// requests, since the others' is the end of their answer.
    fn counts(&self, labels: &Labels<'_>, signal: Latency) -> bool {
        if self.engine != Engine::Sglang {
            return true;
        }
        let is = |label: &str, wanted: &[&str]| labels.get(label).is_none_or(|found| wanted.contains(&&*found));
        (signal != Latency::TimeToFirstToken || is("is_streaming", &["true", "True"]))
            && is("priority", &[""])
            && ["tp_rank", "pp_rank", "moe_ep_rank"].into_iter().all(|rank| is(rank, &["0"]))
    }

    fn settled(&self, raw: Vec<Raw<'_>>) -> LatencyPage {
        let mut page = LatencyPage::default();
        let mut models: Vec<Arc<str>> = Vec::new();
        let mut left = MOST_BUCKETS_IN_ALL;
        for raw in raw {
            let model = self.engine.model_label().and_then(|label| raw.labels.get(label)).filter(|name| !name.is_empty());
            let model = match model {
                None => Some(None),
                Some(name) => match models.iter().find(|known| ***known == *name) {
                    Some(known) => Some(Some(known.clone())),
                    None if models.len() >= MOST_MODELS => None,
                    None => {
                        models.push(Arc::from(&*name));
                        models.last().cloned().map(Some)
                    }
                },
            };
            let buckets = raw.buckets.len();
            match (model, raw.settled()) {
                (Some(model), Some((identity, signal, bounds, cumulative))) if buckets <= left => {
                    left -= buckets;
                    page.series.push(LatencySeries { identity, model, signal, bounds, cumulative });
                }
                _ => page.refused += 1,
            }
        }
        page
    }
}

/// A histogram while its lines are gathered.
struct Raw<'page> {
    identity: u64,
    signal: Latency,
    labels: Labels<'page>,
    buckets: Vec<(f64, f64)>,
    broken: bool,
}

impl Raw<'_> {
    fn add(&mut self, sample: &Sample<'_>) {
        let bound = sample.labels.get("le").and_then(|text| text.parse::<f64>().ok()).filter(|bound| !bound.is_nan());
        match bound {
            // The first of equals counts, as everywhere.
            Some(bound) if self.buckets.iter().any(|(known, _)| *known == bound) => {}
            Some(bound) if self.buckets.len() <= MOST_BUCKETS => self.buckets.push((bound, sample.value)),
            _ => self.broken = true,
        }
    }

    /// Bounds and counts, where they can be true.
    fn settled(mut self) -> Option<(u64, Latency, Vec<f64>, Vec<u64>)> {
        /// Beyond it a count is no longer exact.
        const MOST: f64 = 9_007_199_254_740_992.0;
        self.buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let (highest, _) = self.buckets.last()?;
        let true_counts = self.buckets.iter().all(|(_, count)| (0.0..=MOST).contains(count));
        let rising = self.buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        let finite = self.buckets.iter().rev().skip(1).all(|(bound, _)| bound.is_finite());
        if self.broken || *highest != f64::INFINITY || self.buckets.len() < 2 || !finite || !true_counts || !rising {
            return None;
        }
        let cumulative = self.buckets.iter().map(|(_, count)| *count as u64).collect();
        self.buckets.pop();
        Some((self.identity, self.signal, self.buckets.into_iter().map(|(bound, _)| bound).collect(), cumulative))
    }
}

/// The labels but for the bound, in any order, and the name.
fn identity(family: u16, labels: &Labels<'_>) -> u64 {
    labels.iter().filter(|(label, _)| *label != "le").fold(u64::from(family), |sum, pair| {
        let mut hasher = DefaultHasher::new();
        pair.hash(&mut hasher);
        sum.wrapping_add(hasher.finish())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(engine: Engine, page: &str) -> LatencyPage {
        LatencyReader::of(engine).unwrap().read(page.as_bytes(), Format::Text).unwrap()
    }

    fn ttft(le: &str, more: &str, count: &str) -> String {
        format!("vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"{le}\",model_name=\"m\"{more}}} {count}\n")
    }

    #[test]
    fn bounds_are_numbers_in_any_spelling_and_order() {
        let page = ttft("+Inf", "", "9.0") + &ttft("1e+00", "", "7") + &ttft("0.5", "", "3.0") + "vllm:other 1\n";
        let read = read(Engine::Vllm, &page);
        assert_eq!((read.series.len(), read.refused), (1, 0));
        let series = &read.series[0];
        assert_eq!((series.model.as_deref(), series.signal), (Some("m"), Latency::TimeToFirstToken));
        assert_eq!((&series.bounds[..], &series.cumulative[..]), (&[0.5, 1.0][..], &[3, 7, 9][..]));
        let same = ttft("1", "", "8") + &ttft("0.50", "", "3") + &ttft("inf", "", "9");
        assert_eq!(self::read(Engine::Vllm, &same).series[0].identity, series.identity);
    }

    #[test]
    fn what_cannot_be_is_refused_and_counted() {
        let refused = |lines: [(&str, &str); 3]| {
            let page: String = lines.iter().map(|(le, count)| ttft(le, "", count)).collect();
            let read = read(Engine::Vllm, &page);
            assert_eq!(read.series, []);
            read.refused
        };
        for lines in [
            [("1", "NaN"), ("2", "3"), ("+Inf", "4")],
            [("1", "-1"), ("2", "3"), ("+Inf", "4")],
            [("1", "3"), ("2", "2"), ("+Inf", "4")],
            [("1", "1"), ("2", "2"), ("4", "4")],
            [("1", "1"), ("two", "2"), ("+Inf", "4")],
            [("-Inf", "1"), ("2", "2"), ("+Inf", "4")],
            [("1", "1"), ("2", "2"), ("+Inf", "+Inf")],
        ] {
            assert_eq!(refused(lines), 1, "{lines:?}");
        }
        let many: String = (0..=MOST_BUCKETS).map(|bound| ttft(&bound.to_string(), "", "1")).collect();
        assert_eq!(read(Engine::Vllm, &(many + &ttft("+Inf", "", "1"))).refused, 1);
    }

    #[test]
    fn one_bad_histogram_does_not_cost_the_others() {
        let page = ttft("1", "", "3") + &ttft("+Inf", "", "2") + &ttft("1", ",rank=\"1\"", "3") + &ttft("+Inf", ",rank=\"1\"", "4");
        let read = read(Engine::Vllm, &page);
        assert_eq!((read.series.len(), read.refused), (1, 1));
    }

    #[test]
    fn a_value_per_request_is_preferred_to_one_per_gap() {
        let of =
            |name: &str, count: u32| format!("vllm:{name}_bucket{{le=\"1\"}} {count}\nvllm:{name}_bucket{{le=\"+Inf\"}} {count}\n");
        let counts = |page: &str| read(Engine::Vllm, page).series.iter().map(|series| series.cumulative[1]).collect::<Vec<_>>();
        let (gaps, requests) = (of("inter_token_latency_seconds", 900), of("request_time_per_output_token_seconds", 9));
        assert_eq!(counts(&(gaps.clone() + &requests)), [9]);
        assert_eq!(counts(&(gaps + &of("time_per_output_token_seconds", 7))), [900]);
    }

    #[test]
    fn of_sglang_streaming_requests_of_all_priorities_on_one_rank_count() {
        let of = |name: &str, labels: &str| {
            format!("sglang:{name}_bucket{{le=\"1\",{labels}}} 1\nsglang:{name}_bucket{{le=\"+Inf\",{labels}}} 1\n")
        };
        let page = of("time_to_first_token_seconds", "is_streaming=\"true\",model_name=\"m\"")
            + &of("time_to_first_token_seconds", "is_streaming=\"false\",model_name=\"m\"")
            + &of("queue_time_seconds", "tp_rank=\"0\",priority=\"\"")
            + &of("queue_time_seconds", "tp_rank=\"1\",priority=\"\"")
            + &of("queue_time_seconds", "tp_rank=\"0\",priority=\"3\"");
        let signals: Vec<_> = read(Engine::Sglang, &page).series.iter().map(|series| series.signal).collect();
        assert_eq!(signals, [Latency::TimeToFirstToken, Latency::Queue]);
    }

    #[test]
    fn engines_without_histograms_have_no_reader() {
        for engine in [Engine::LlamaCpp, Engine::TritonTensorrtLlm, Engine::Custom] {
            assert!(LatencyReader::of(engine).is_none());
        }
        assert_eq!(LatencyReader::of(Engine::LlmDInferenceSim).unwrap().names().count(), 6);
    }

    proptest! {
        #[test]
        fn no_page_breaks_it(lines in prop::collection::vec(("[0-9.eInfNa+-]{0,6}", "[0-9.eInfNa+-]{1,6}", 0..3_u8), 0..40)) {
            let lines = lines.iter().map(|(le, count, rank)| ttft(le, &format!(",rank=\"{rank}\""), count));
            let page: String = lines.chain(["vllm:other 1\n".to_owned()]).collect();
            for series in read(Engine::Vllm, &page).series {
                prop_assert_eq!(series.cumulative.len(), series.bounds.len() + 1);
                prop_assert!(series.bounds.is_sorted() && series.cumulative.is_sorted());
            }
        }
    }
}
