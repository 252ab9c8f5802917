//! The exposition text as Python's prometheus_client lays it out.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::Histogram;

/// A page under construction, restricted to some sample names or not.
pub(super) struct PageWriter<'a> {
    page: String,
    /// `None`: everything.
    names: Option<HashSet<&'a str>>,
}

/// Where `_sum` and `_count` stand, and whether `_created` follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One process: buckets, `_count`, `_sum`, and a `_created` gauge family with this Unix time.
    OneProcess { created_at: Duration },
    /// Several processes: `_sum`, buckets, `_count`; no `_created`.
    ManyProcesses,
}

impl Layout {
    fn created_at(self) -> Option<f64> {
        match self {
            Self::OneProcess { created_at } => Some(created_at.as_secs_f64()),
            Self::ManyProcesses => None,
        }
    }
}

/// Label pairs in the order they are printed: alphabetical, but for `le`, which is sorted in.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl<'a> PageWriter<'a> {
    pub(super) fn new(names: &'a [String]) -> Self {
        let names = (!names.is_empty()).then(|| names.iter().map(String::as_str).collect::<HashSet<_>>());
        let capacity = if names.is_some() { 1024 } else { 64 * 1024 };
        Self { page: String::with_capacity(capacity), names }
    }

    pub(super) fn finish(self) -> String {
        self.page
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, series: &[(Labels<'_>, f64)]) {
        self.family(name, "gauge", help, |writer| {
            for (labels, value) in series {
                writer.sample(name, "", labels, None, *value);
            }
        });
    }

    /// A counter; `name` comes without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, layout: Layout, series: &[(Labels<'_>, f64)]) {
        let total = format!("{name}_total");
        self.family_with_created(&total, name, "counter", help, layout, series.iter().map(|(labels, _)| *labels), |writer| {
            for (labels, value) in series {
                writer.sample(&total, "", labels, None, *value);
            }
        });
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, layout: Layout, series: &[(Labels<'_>, &Histogram)]) {
        self.family_with_created(name, name, "histogram", help, layout, series.iter().map(|(labels, _)| *labels), |writer| {
            for (labels, histogram) in series {
                if layout == Layout::ManyProcesses {
                    writer.sample(name, "_sum", labels, None, histogram.sum());
                }
                for (bound, count) in histogram.cumulative() {
                    writer.sample(name, "_bucket", labels, Some(bound), count as f64);
                }
                writer.sample(name, "_count", labels, None, histogram.count() as f64);
                if layout != Layout::ManyProcesses {
                    writer.sample(name, "_sum", labels, None, histogram.sum());
                }
            }
        });
    }

    /// A summary without quantiles: (labels, count, sum).
    pub(super) fn summary(&mut self, name: &str, help: &str, layout: Layout, series: &[(Labels<'_>, f64, f64)]) {
        self.family_with_created(name, name, "summary", help, layout, series.iter().map(|(labels, ..)| *labels), |writer| {
            for (labels, count, sum) in series {
                writer.sample(name, "_count", labels, None, *count);
                writer.sample(name, "_sum", labels, None, *sum);
            }
        });
    }

    /// Adds filler series until a page has `bytes` bytes.
    pub(super) fn pad_to(&mut self, bytes: usize) {
        if self.page.len() >= bytes {
            return;
        }
        self.page
            .push_str("# HELP simulator_padding Filler that brings the page to a given size.\n# TYPE simulator_padding gauge\n");
        for index in 0u64.. {
            if self.page.len() >= bytes {
                return;
            }
            self.sample("simulator_padding", "", &[("index", &format!("{index:012}"))], None, 0.0);
        }
    }

    /// Header and samples; neither when a restriction leaves no sample.
    fn family(&mut self, name: &str, kind: &str, help: &str, write_samples: impl FnOnce(&mut Self)) {
        let start = self.page.len();
        self.header(name, kind, help);
        let samples_start = self.page.len();
        write_samples(self);
        if self.names.is_some() && self.page.len() == samples_start {
            self.page.truncate(start);
        }
    }

    /// A family with its `_created` twin. prometheus_client treats both as one: either's samples bring the first header.
    #[expect(clippy::too_many_arguments, reason = "one family's whole description")]
    fn family_with_created<'l>(
        &mut self,
        name: &str,
        created_base: &str,
        kind: &str,
        help: &str,
        layout: Layout,
        series: impl Iterator<Item = Labels<'l>>,
        write_samples: impl FnOnce(&mut Self),
    ) {
        self.family(name, kind, help, |writer| {
            write_samples(writer);
            let Some(created_at) = layout.created_at() else { return };
            let created = format!("{created_base}_created");
            let start = writer.page.len();
            writer.header(&created, "gauge", help);
            let samples_start = writer.page.len();
            for labels in series {
                writer.sample(&created, "", labels, None, created_at);
            }
            if writer.page.len() == samples_start {
                writer.page.truncate(start);
            }
        });
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.page.push_str(part);
        }
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>, bound: Option<f64>, value: f64) {
        if let Some(names) = &self.names {
            let wanted = if suffix.is_empty() { names.contains(name) } else { names.contains(format!("{name}{suffix}").as_str()) };
            if !wanted {
                return;
            }
        }
        self.page.push_str(name);
        self.page.push_str(suffix);
        let mut separator = '{';
        let mut bound = bound;
        for (key, text) in labels {
            if *key > "le"
                && let Some(bound) = bound.take()
            {
                self.bound_label(&mut separator, bound);
            }
            self.label(&mut separator, key, text);
        }
        if let Some(bound) = bound {
            self.bound_label(&mut separator, bound);
        }
        self.page.push_str(if separator == '{' { " " } else { "} " });
        push_value(&mut self.page, value);
        self.page.push('\n');
    }

    fn label(&mut self, separator: &mut char, key: &str, text: &str) {
        self.page.push(std::mem::replace(separator, ','));
        self.page.push_str(key);
        self.page.push_str("=\"");
        for character in text.chars() {
            match character {
                '\\' => self.page.push_str("\\\\"),
                '"' => self.page.push_str("\\\""),
                '\n' => self.page.push_str("\\n"),
                other => self.page.push(other),
            }
        }
        self.page.push('"');
    }

    fn bound_label(&mut self, separator: &mut char, bound: f64) {
        self.page.push(std::mem::replace(separator, ','));
        self.page.push_str("le=\"");
        push_value(&mut self.page, bound);
        self.page.push('"');
    }
}

/// A value as prometheus_client prints it: Python's shortest digits with at least one decimal, but `1.5e+06` from seven integer digits on.
pub fn format_value(value: f64) -> String {
    let mut text = String::new();
    push_value(&mut text, value);
    text
}

fn push_value(text: &mut String, value: f64) {
    // Most values are small counts. Writing into a String cannot fail, so its Result carries nothing.
    if value.is_sign_positive() && value < 1e6 && value.fract() == 0.0 {
        append(text, format_args!("{}.0", value as u32));
        return;
    }
    if value.is_nan() {
        return text.push_str("NaN");
    }
    if value.is_infinite() {
        return text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    // Shortest digits that read back as the same value, as Python's repr: "d.ddde±x".
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return text.push_str(&scientific) };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let go_exponent = value > 0.0 && (6..16).contains(&exponent);
    if go_exponent || !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        append(text, format_args!("{mantissa}e{sign}{:02}", exponent.abs()));
    } else {
        append(text, format_args!("{value:?}"));
    }
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    if text.write_fmt(arguments).is_err() {
        // A String takes everything; nothing to do.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_in_python() {
        let expected = [
            (23.0, "23.0"),
            (0.0, "0.0"),
            (999_999.0, "999999.0"),
            (1_048_576.0, "1.048576e+06"),
            (1e6, "1e+06"),
            (1.7952346e9, "1.7952346e+09"),
            (1_795_234_558.63, "1.79523455863e+09"),
            (12_476_616_704.0, "1.2476616704e+10"),
            (123_456.789, "123456.789"),
            (0.631_756_756_756_756_8, "0.6317567567567568"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e16, "1e+16"),
            (-1.0, "-1.0"),
            (-0.0, "-0.0"),
            (-2_000_000.0, "-2000000.0"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in expected {
            assert_eq!(format_value(value), text);
        }
    }

    #[test]
    fn labels_are_escaped_and_le_is_sorted_in() {
        let names = Vec::new();
        let mut writer = PageWriter::new(&names);
        writer.sample("m", "_bucket", &[("a", "x\\\"\n,={}"), ("model", "é")], Some(0.5), 1.0);
        writer.sample("m", "", &[], None, 2.0);
        assert_eq!(writer.finish(), "m_bucket{a=\"x\\\\\\\"\\n,={}\",le=\"0.5\",model=\"é\"} 1.0\nm 2.0\n");
    }
}
