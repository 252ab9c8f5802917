//! The registry as a page, in either of the two text formats that Prometheus reads.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

/// How a page is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PageFormat {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl PageFormat {
    /// The format that the `Accept` headers prefer; text where they say nothing, as Prometheus clients do.
    pub fn negotiate<'header>(accept: impl Iterator<Item = &'header str>) -> Self {
        let mut best = (Self::Text, 0.0);
        for clause in accept.flat_map(|header| header.split(',')).take(64) {
            let mut parts = clause.split(';').map(str::trim);
            let format = match parts.next() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Self::Text,
                _ => continue,
            };
            let weight = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            // Of equals the first named.
            if weight > best.1 {
                best = (format, weight);
            }
        }
        best.0
    }

    /// The Content-Type of a page in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything in `registry` as a page.
///
/// # Errors
/// Where a collector in the registry fails to encode itself.
pub fn render(registry: &Registry, format: PageFormat) -> Result<String, fmt::Error> {
    let mut page = String::with_capacity(16 * 1024);
    encode_registry(&mut page, registry)?;
    if let Some(once) = families_once(&page) {
        page = once;
    }
    match format {
        PageFormat::OpenMetrics => encode_eof(&mut page)?,
        PageFormat::Text => page = as_text(&page),
    }
    Ok(page)
}

/// Each family once, with all its samples, where several parts of the registry have it (as parts that differ by a label do); none where
/// that is so already.
fn families_once(page: &str) -> Option<String> {
    let family = |line: &'_ str| line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let mut places = HashMap::new();
    let mut families: Vec<String> = Vec::new();
    let (mut place, mut repeats, mut again) = (None, false, false);
    for line in page.lines() {
        if let Some(name) = family(line) {
            again = places.contains_key(&name);
            repeats |= again;
            place = Some(*places.entry(name).or_insert_with(|| {
                families.push(String::new());
                families.len() - 1
            }));
        }
        let skipped = again && line.starts_with("# ");
        if let Some(text) = place.and_then(|place: usize| families.get_mut(place)).filter(|_| !skipped) {
            text.push_str(line);
            text.push('\n');
        }
    }
    repeats.then(|| families.concat())
}

/// OpenMetrics names a counter without `_total` in its metadata and knows types and units that the older format does not.
fn as_text(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len() + 1024);
    let mut help: Option<&str> = None;
    for line in open_metrics.lines() {
        let metadata = |keyword: &str| line.strip_prefix("# ")?.strip_prefix(keyword)?.strip_prefix(' ')?.split_once(' ');
        if metadata("HELP").is_some() {
            // The name that HELP needs depends on the type, which comes next.
            help = Some(line);
        } else if let Some((name, kind)) = metadata("TYPE") {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take().and_then(|line| line.strip_prefix("# HELP ")?.split_once(' ')) {
                page.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            page.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if metadata("UNIT").is_none() {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;

    fn negotiated(accept: &str) -> PageFormat {
        PageFormat::negotiate(std::iter::once(accept))
    }

    #[test]
    fn the_format_is_the_one_asked_for() {
        // What Prometheus 2 and 3 send.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(negotiated(prometheus), PageFormat::OpenMetrics);
        assert_eq!(negotiated("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;q=0.5"), PageFormat::Text);
        assert_eq!(negotiated("*/*"), PageFormat::Text);
        assert_eq!(negotiated("text/html, q=;;,"), PageFormat::Text);
        assert_eq!(negotiated("application/openmetrics-text;q=0"), PageFormat::Text);
        assert_eq!(PageFormat::negotiate(std::iter::empty()), PageFormat::Text);
    }

    #[test]
    fn parts_that_differ_by_a_label_are_one_family() {
        let mut registry = Registry::default();
        registry.register("alone", "Alone", Gauge::<i64>::default());
        for part in ["a", "b"] {
            let part = registry.sub_registry_with_label(("part".into(), part.into()));
            part.register("objects", "Objects", Gauge::<i64>::default());
            part.register("reads", "Reads", Counter::<u64>::default());
        }
        insta::assert_snapshot!(render(&registry, PageFormat::OpenMetrics).unwrap(), @r#"
        # HELP alone Alone.
        # TYPE alone gauge
        alone 0
        # HELP objects Objects.
        # TYPE objects gauge
        objects{part="a"} 0
        objects{part="b"} 0
        # HELP reads Reads.
        # TYPE reads counter
        reads_total{part="a"} 0
        reads_total{part="b"} 0
        # EOF
        "#);
    }

    #[test]
    fn both_formats_name_counters_as_their_readers_expect() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        registry.register("scrapes", "Pages read", counter);
        registry.register("endpoints", "Endpoints", Gauge::<i64>::default());
        registry.register_with_unit("wait", "Time", Unit::Seconds, Histogram::new([0.5]));
        insta::assert_snapshot!(render(&registry, PageFormat::Text).unwrap(), @r#"
        # HELP scrapes_total Pages read.
        # TYPE scrapes_total counter
        scrapes_total 3
        # HELP endpoints Endpoints.
        # TYPE endpoints gauge
        endpoints 0
        # HELP wait_seconds Time.
        # TYPE wait_seconds histogram
        wait_seconds_sum 0.0
        wait_seconds_count 0
        wait_seconds_bucket{le="0.5"} 0
        wait_seconds_bucket{le="+Inf"} 0
        "#);
        let open_metrics = render(&registry, PageFormat::OpenMetrics).unwrap();
        assert!(
            open_metrics.starts_with("# HELP scrapes Pages read.\n# TYPE scrapes counter\nscrapes_total 3\n"),
            "{open_metrics}"
        );
        assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");
    }
}
