//! Prints the table of `docs/scaling.md`: `cargo run --release -p weir-what-if --example table [seeds [row…]]`.

use weir_what_if::table::{Plan, cells, false_alarm_markdown, false_alarms, markdown};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut plan = Plan { seeds: numbers.next().transpose()?.unwrap_or(2), ..Plan::default() };
    let rows = numbers.map(|number| number.map(|number| number as usize)).collect::<Result<Vec<_>, _>>()?;
    if !rows.is_empty() {
        plan.rows = rows;
    }
    print!("{}", markdown(&plan, &cells(&plan)?));
    print!("{}", false_alarm_markdown(&false_alarms(plan.seeds)?));
    Ok(())
}
