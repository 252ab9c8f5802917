//! The table as it stands in the documentation.

use std::fmt::Write as _;

use super::{Cell, FalseAlarm, Plan, Row, STARTS};
use crate::load::Shape;

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// Three values of the three start times, or one where they are alike.
fn triple(values: [Option<f64>; 3]) -> String {
    let shown = values.map(|value| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}")));
    if shown[0] == shown[1] && shown[1] == shown[2] { shown[0].clone() } else { shown.join("/") }
}

/// What a daily profile costs on a day unlike the two before.
pub fn false_alarm_markdown(alarms: &[FalseAlarm]) -> String {
    let mut text = String::from(
        "\nA day on which nothing comes of what the two days before had: GPU hours that `daily` adds, % of the static peak of those days, and \
         requests in the service level, % (with / without it).\n\n| |",
    );
    for alarm in alarms {
        write!(text, " {} |", alarm.shape.name()).unwrap_or_default();
    }
    write!(text, "\n|---|{}\n| added GPU hours |", "---|".repeat(alarms.len())).unwrap_or_default();
    for alarm in alarms {
        write!(text, " {:.0} |", 100.0 * alarm.added).unwrap_or_default();
    }
    text.push_str("\n| in SLO |");
    for alarm in alarms {
        write!(text, " {:.1} / {:.1} |", 100.0 * alarm.in_slo.0, 100.0 * alarm.in_slo.1).unwrap_or_default();
    }
    text.push('\n');
    text
}

/// The share in the service level by shape, then the means; after it the GPU hours by shape.
pub fn markdown(plan: &Plan, cells: &[Cell]) -> String {
    let mut text = String::new();
    let header = |text: &mut String, last: &str| {
        let shapes: Vec<&str> = plan.shapes.iter().map(|shape| shape.name()).collect();
        let columns = shapes.len() + last.matches('|').count() + 2;
        writeln!(text, "| policy | {} |{last}\n|{}", shapes.join(" | "), "---|".repeat(columns - 1)).unwrap_or_default();
    };
    let of = |row: usize, shape: Option<Shape>, start: Option<usize>, value: fn(&Cell) -> f64| {
        let chosen = cells.iter().filter(|cell| {
            cell.row == row
                && shape.is_none_or(|shape| Shape::ALL[cell.shape] == shape)
                && start.is_none_or(|start| cell.start == start)
        });
        mean(chosen.map(value))
    };
    let by_start = |row: usize, shape: Option<Shape>, value: fn(&Cell) -> f64| {
        std::array::from_fn::<_, 3, _>(|start| of(row, shape, Some(start), value).map(|value| value * 100.0))
    };
    let minutes = STARTS.map(|start| format!("{:.0}", start / 60.0)).join("/");
    writeln!(text, "Requests in the service level, %, at start times of {minutes} min; one number: all alike.\n")
        .unwrap_or_default();
    header(&mut text, " mean | ÷ static | ÷ clairvoyant | overshoot | flaps | lost % |");
    for (index, row) in Row::ALL.iter().enumerate() {
        if of(index, None, None, |_| 0.0).is_none() {
            continue;
        }
        write!(text, "| {} |", row.name()).unwrap_or_default();
        for shape in &plan.shapes {
            write!(text, " {} |", triple(by_start(index, Some(*shape), |cell| cell.in_slo))).unwrap_or_default();
        }
        let number = |value: fn(&Cell) -> f64| of(index, None, None, value).unwrap_or_default();
        writeln!(
            text,
            " {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
            triple(by_start(index, None, |cell| cell.in_slo)),
            number(|cell| cell.to_static),
            number(|cell| cell.to_clairvoyant),
            number(|cell| cell.overshoot),
            number(|cell| f64::from(cell.flaps)),
            100.0 * number(|cell| cell.lost),
        )
        .unwrap_or_default();
    }
    writeln!(text, "\nGPU hours, % of the static peak.\n").unwrap_or_default();
    header(&mut text, " mean |");
    for (index, row) in Row::ALL.iter().enumerate().skip(1) {
        if of(index, None, None, |_| 0.0).is_none() {
            continue;
        }
        write!(text, "| {} |", row.name()).unwrap_or_default();
        for shape in &plan.shapes {
            write!(text, " {} |", triple(by_start(index, Some(*shape), |cell| cell.to_static))).unwrap_or_default();
        }
        writeln!(text, " {} |", triple(by_start(index, None, |cell| cell.to_static))).unwrap_or_default();
    }
    text
}
