//! One HTML file with everything in it: no script, no font, nothing loaded.

use std::fmt::Write as _;

use super::{grouped, in_slo, most_pods, ttft};
use crate::outcome::{Outcome, Stretch};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 52.0;
const PODS_HEIGHT: f64 = 150.0;
const LINE_HEIGHT: f64 = 60.0;
const GAP: f64 = 22.0;
/// Most points of a line.
const POINTS: usize = 400;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid #d0d7de}\
th:first-child,td:first-child{text-align:left}h2{margin:2rem 0 .3rem;font-size:1.1rem}svg{width:100%;height:auto}\
pre{white-space:pre-wrap;background:#f6f8fa;padding:.8rem;border-radius:6px;font:13px/1.5 ui-monospace,monospace}\
.axis{stroke:#8c959f;stroke-width:1}.label{fill:#57606a;font-size:11px}.ready{fill:#54aeff;fill-opacity:.55}\
.present{fill:none;stroke:#0969da;stroke-width:1.5}.needed{fill:none;stroke:#bc4c00;stroke-width:1.5;stroke-dasharray:4 3}\
.ttft{fill:none;stroke:#8250df;stroke-width:1.5}.slo{fill:none;stroke:#1a7f37;stroke-width:1.5}.limit{stroke:#cf222e;stroke-width:1;stroke-dasharray:2 3}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}pre{background:#161b22}.label{fill:#8b949e}}";

/// The page: a heading, the outcomes as a table and as charts, and the advice. The first outcome is the static peak.
pub fn html(title: &str, outcomes: &[&Outcome], advice: &str) -> String {
    let mut page = String::new();
    let heading = escaped(title);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{heading}</title>\n<style>{STYLE}</style>\n<h1>{heading}</h1>\n<pre>{}</pre>\n",
        escaped(advice)
    )
    .unwrap_or_default();
    table(&mut page, outcomes);
    page.push_str(
        "<p class=\"label\">Blue area: pods ready. Blue line: pods there, starting included. Orange: pods needed. \
                   Violet: 95th percentile of the time to first token (red: the service level). Green: requests in time.</p>\n",
    );
    let top = most_pods(outcomes);
    for outcome in outcomes {
        writeln!(page, "<h2>{}</h2>", escaped(&outcome.name)).unwrap_or_default();
        charts(&mut page, outcome, f64::from(top));
    }
    page.push_str("</html>\n");
    page
}

fn table(page: &mut String, outcomes: &[&Outcome]) {
    page.push_str(
        "<table><tr><th>policy</th><th>in SLO</th><th>TTFT p50</th><th>TTFT p95</th><th>GPU hours</th><th>of static</th>\
                   <th>most pods</th><th>needed</th><th>flaps</th><th>lost</th></tr>\n",
    );
    let of_static = outcomes.first().map_or(1.0, |first| first.gpu_hours);
    for outcome in outcomes {
        writeln!(
            page,
            "<tr><td>{}</td><td>{:.1} %</td><td>{:.2} s</td><td>{:.1} s</td><td>{:.1}</td><td>{:.0} %</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{:.1} %</td></tr>",
            escaped(&outcome.name),
            100.0 * outcome.in_slo_share(),
            outcome.ttft.0,
            outcome.ttft.1,
            outcome.gpu_hours,
            100.0 * outcome.gpu_hours / of_static,
            outcome.peak,
            outcome.needed_peak,
            outcome.flaps,
            100.0 * outcome.lost_share(),
        )
        .unwrap_or_default();
    }
    page.push_str("</table>\n");
}

fn charts(page: &mut String, outcome: &Outcome, top: f64) {
    let groups = grouped(&outcome.series, POINTS);
    let height = PODS_HEIGHT + 2.0 * (LINE_HEIGHT + GAP) + 34.0;
    let x = |index: usize| LEFT + (WIDTH - LEFT) * index as f64 / groups.len().max(1) as f64;
    writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escaped(&outcome.name))
        .unwrap_or_default();
    let pods = |of: fn(&Stretch) -> u32| -> Vec<f64> {
        groups.iter().map(|group| f64::from(group.iter().map(of).max().unwrap_or(0))).collect()
    };
    let y = |value: f64| 10.0 + PODS_HEIGHT * (1.0 - (value / top).min(1.0));
    let steps = |values: &[f64]| {
        let mut path = String::new();
        for (index, value) in values.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}L{:.1} {:.1}", x(index), y(*value), x(index + 1), y(*value)).unwrap_or_default();
        }
        path
    };
    let ready = steps(&pods(|stretch| stretch.ready));
    let floor = y(0.0);
    writeln!(page, "<path class=\"ready\" d=\"{ready}L{WIDTH} {floor:.1}L{LEFT} {floor:.1}Z\"/>").unwrap_or_default();
    writeln!(page, "<path class=\"present\" d=\"{}\"/>", steps(&pods(|stretch| stretch.present))).unwrap_or_default();
    writeln!(page, "<path class=\"needed\" d=\"{}\"/>", steps(&pods(|stretch| stretch.needed))).unwrap_or_default();
    axis(page, 10.0, PODS_HEIGHT, &format!("{top:.0} pods"));

    let slo_top = 10.0 + PODS_HEIGHT + GAP;
    let most = outcome.slo * 4.0;
    let late: Vec<Option<f64>> = groups.iter().map(|group| ttft(group).map(|seconds| 1.0 - (seconds / most).min(1.0))).collect();
    writeln!(page, "<path class=\"ttft\" d=\"{}\"/>", line(&late, slo_top, &x)).unwrap_or_default();
    let limit = slo_top + LINE_HEIGHT * 0.75;
    writeln!(page, "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{limit}\" y2=\"{limit}\"/>").unwrap_or_default();
    axis(page, slo_top, LINE_HEIGHT, &format!("{most:.0} s"));

    let share_top = slo_top + LINE_HEIGHT + GAP;
    let shares: Vec<Option<f64>> = groups.iter().map(|group| in_slo(group).map(|share| 1.0 - share)).collect();
    writeln!(page, "<path class=\"slo\" d=\"{}\"/>", line(&shares, share_top, &x)).unwrap_or_default();
    axis(page, share_top, LINE_HEIGHT, "100 %");
    let minutes = outcome.series.last().map_or(0.0, |last| last.at / 60.0);
    let bottom = height - 4.0;
    writeln!(
        page,
        "<text class=\"label\" x=\"{LEFT}\" y=\"{bottom}\">0</text>\
         <text class=\"label\" x=\"{WIDTH}\" y=\"{bottom}\" text-anchor=\"end\">{minutes:.0} min</text></svg>"
    )
    .unwrap_or_default();
}

/// A line through values of 0 (top) to 1, broken where there are none.
fn line(values: &[Option<f64>], top: f64, x: &impl Fn(usize) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            pen_down = false;
            continue;
        };
        let command = if pen_down { 'L' } else { 'M' };
        write!(path, "{command}{:.1} {:.1}", x(index), top + LINE_HEIGHT * value).unwrap_or_default();
        pen_down = true;
    }
    path
}

fn axis(page: &mut String, top: f64, height: f64, label: &str) {
    let bottom = top + height;
    writeln!(
        page,
        "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {top}V{bottom}H{WIDTH}\"/>\
         <text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>\
         <text class=\"label\" x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
        LEFT - 6.0,
        top + 9.0,
        LEFT - 6.0,
    )
    .unwrap_or_default();
}

/// Text that may stand anywhere in HTML: names come from files.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_are_text() {
        assert_eq!(escaped("<b>\"x\" & 'y'"), "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;");
    }
}
