//! The page of an endpoint picker: which requests it holds, and how many arrived.
//!
//! Read are the pickers of the Gateway API Inference Extension (1.x) and its successor llm-d-router, which writes each metric under
//! its new name and the old one beside it: one of the two is read, they are never added.

use std::collections::HashSet;

use thiserror::Error;
use tokio::time::Instant;

use crate::load::PickerLoad;
use crate::page::{Effort, Format, PageError, Sample, ScanLimits, Wanted, scan};

/// What a family of a picker's page says.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Meaning {
    /// Requests in the flow control queues, by flow, priority and model (gauge).
    Held,
    /// Requests that were scheduled, by model and priority (counter).
    Arrivals,
    /// That the page is a picker's.
    Mark,
}

/// Names, newest first for each meaning.
const FAMILIES: [(&str, Meaning, u8); 8] = [
    ("llm_d_epp_flow_control_queue_size", Meaning::Held, 0),
    ("inference_extension_flow_control_queue_size", Meaning::Held, 1),
    ("llm_d_epp_request_total", Meaning::Arrivals, 0),
    ("inference_objective_request_total", Meaning::Arrivals, 1),
    ("llm_d_epp_info", Meaning::Mark, 0),
    ("inference_extension_info", Meaning::Mark, 1),
    ("llm_d_epp_ready_endpoints", Meaning::Mark, 2),
    ("inference_pool_ready_pods", Meaning::Mark, 3),
];

/// More requests than any picker can hold or count: beyond it a number is garbage.
const MOST_REQUESTS: f64 = 1e15;

/// Why a page says nothing of a picker.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum PickerPageError {
    /// The page cannot be used at all.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A metrics page, but not a picker's.
    #[error(
        "a metrics page of {sample_lines} samples, none of them an endpoint picker's (such as inference_extension_info): is the port \
         the picker's metrics port (9090)?"
    )]
    NotAPicker {
        /// Samples on the page.
        sample_lines: u32,
    },
    /// A number that cannot be one of requests.
    #[error("line {line}: {value} is no number of requests")]
    Invalid {
        /// Where it stands.
        line: u32,
        /// The number.
        value: String,
    },
}

/// Reads pickers' pages.
#[derive(Clone, Debug)]
pub struct PickerPageReader {
    wanted: Wanted,
}

impl Default for PickerPageReader {
    fn default() -> Self {
        Self { wanted: Wanted::new(FAMILIES.iter().map(|(name, _, _)| *name)) }
    }
}

impl PickerPageReader {
    /// What `page` says of the picker of the pool called `pool`. Series of another pool are passed over.
    ///
    /// # Errors
    /// [`PickerPageError`]. A number that cannot be true refuses the page: a total with a part missing would be too small.
    pub fn read(&self, page: &[u8], format: Format, pool: &str, asked_at: Instant) -> Result<PickerLoad, PickerPageError> {
        self.read_of(page, format, Some(pool), asked_at)
    }

    /// The same, of whatever pools the picker serves.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_any(&self, page: &[u8], format: Format, asked_at: Instant) -> Result<PickerLoad, PickerPageError> {
        self.read_of(page, format, None, asked_at)
    }

    fn read_of(&self, page: &[u8], format: Format, pool: Option<&str>, asked_at: Instant) -> Result<PickerLoad, PickerPageError> {
        let mut samples = Vec::new();
        let report = scan(page, format, &self.wanted, Effort::WantedLines, ScanLimits::default(), &mut samples)?;
        if samples.is_empty() {
            return Err(PickerPageError::NotAPicker { sample_lines: report.sample_lines });
        }
        let held = sum(&samples, Meaning::Held, pool)?;
        let arrivals = sum(&samples, Meaning::Arrivals, pool)?;
        Ok(PickerLoad { read_at: asked_at, held, in_flight: None, arrivals: arrivals.unwrap_or(0), prompt_tokens: None })
    }
}

fn sum(samples: &[Sample<'_>], meaning: Meaning, pool: Option<&str>) -> Result<Option<u64>, PickerPageError> {
    let of_meaning = || {
        samples.iter().filter_map(|sample| {
            let (_, means, preference) = FAMILIES[usize::from(sample.family)];
            (means == meaning).then_some((sample, preference))
        })
    };
    let Some(newest) = of_meaning().map(|(_, preference)| preference).min() else { return Ok(None) };
    let mut seen = HashSet::new();
    let mut total = 0.0;
    for (sample, _) in of_meaning().filter(|(_, preference)| *preference == newest) {
        let named = || sample.labels.get("inference_pool").filter(|named| !named.is_empty());
        let another_pools = pool.is_some_and(|pool| named().is_some_and(|named| named != pool));
        if another_pools || !seen.insert(sample.labels.identity()) {
            continue;
        }
        if !(0.0..=MOST_REQUESTS).contains(&sample.value) {
            return Err(PickerPageError::Invalid { line: sample.line, value: sample.value.to_string() });
        }
        total += sample.value;
    }
    Ok(Some(total as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Result<PickerLoad, PickerPageError> {
        PickerPageReader::default().read(page.as_bytes(), Format::Text, "p", Instant::now())
    }

    #[test]
    fn flows_add_up_and_the_two_names_of_a_metric_do_not() {
        let page = "inference_extension_flow_control_queue_size{fairness_id=\"a\",inference_pool=\"p\"} 12\n\
                    inference_extension_flow_control_queue_size{fairness_id=\"b\",inference_pool=\"p\"} 7\n\
                    inference_extension_flow_control_queue_size{fairness_id=\"a\",inference_pool=\"q\"} 100\n\
                    inference_objective_request_total{model_name=\"m\"} 5\n";
        let load = read(page).unwrap();
        assert_eq!((load.held, load.arrivals), (Some(19), 5));
        let any = PickerPageReader::default().read_any(page.as_bytes(), Format::Text, Instant::now()).unwrap();
        assert_eq!(any.held, Some(119));
        let both =
            format!("{page}{}", page.replace("inference_extension_", "llm_d_epp_").replace("inference_objective_", "llm_d_epp_"));
        let load = read(&both).unwrap();
        assert_eq!((load.held, load.arrivals), (Some(19), 5));
    }

    #[test]
    fn a_picker_without_flow_control_tells_of_nothing_held() {
        let load = read("inference_extension_info{commit=\"x\"} 1\n").unwrap();
        assert_eq!((load.held, load.arrivals), (None, 0));
    }

    #[test]
    fn what_is_no_pickers_page_is_not_taken_for_an_idle_picker() {
        let error = read("vllm:num_requests_running 0\n").unwrap_err();
        assert_eq!(error, PickerPageError::NotAPicker { sample_lines: 1 });
        assert!(matches!(read("inference_extension_info 1"), Err(PickerPageError::Page(PageError::Truncated))));
        let negative = read("inference_extension_flow_control_queue_size{a=\"b\"} -1\n").unwrap_err();
        assert_eq!(negative.to_string(), "line 1: -1 is no number of requests");
        assert!(read("inference_extension_flow_control_queue_size NaN\n").is_err());
    }
}
