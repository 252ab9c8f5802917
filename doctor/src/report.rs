//! What was found, for people and for programs.

use crate::finding::{Examination, Finding, Severity};

/// For people. `colour`: with the escapes of a terminal.
pub fn text(examination: &Examination, colour: bool) -> String {
    let mut told = String::new();
    for finding in &examination.findings {
        told.push_str(&one(finding, colour));
    }
    for missing in &examination.not_known {
        let checks = match missing.checks.len() {
            0 => "some evidence is missing".to_owned(),
            1..=4 => format!("not or not wholly checked: {}", missing.checks.join(", ")),
            many => format!("not or not wholly checked: {} and {} more", missing.checks[..4].join(", "), many - 4),
        };
        told.push_str(&format!(
            "{}  {}: {}\n    {checks}\n",
            painted("unknown", DIM, colour),
            missing.facts,
            printable(&missing.why)
        ));
    }
    if !examination.findings.is_empty() || !examination.not_known.is_empty() {
        told.push('\n');
    }
    told.push_str(&summary(examination));
    told
}

/// For programs: one JSON object.
///
/// # Errors
/// None that can be expected: everything in it is text and numbers.
pub fn json(examination: &Examination) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(examination)?;
    text.push('\n');
    Ok(text)
}

const RED: &str = "31";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const DIM: &str = "2";
const BOLD: &str = "1";

fn painted(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Objects are written by others: they are not to move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn one(finding: &Finding, colour: bool) -> String {
    let (word, code) = match finding.severity {
        Severity::Error => ("error", RED),
        Severity::Warning => ("warning", YELLOW),
        Severity::Note => ("note", BLUE),
    };
    let head = format!("{} {}", painted(&format!("{word:<7}"), code, colour), painted(&printable(&finding.object), BOLD, colour));
    let mut told = format!("{head}: {} [{}]\n", printable(&finding.what), finding.code);
    if !finding.evidence.is_empty() {
        told.push_str(&format!("    {}\n", printable(&finding.evidence)));
    }
    // A remedy may be several lines: those that are to be pasted.
    for (position, line) in finding.remedy.lines().enumerate() {
        told.push_str(&format!("    {} {}\n", if position == 0 { "→" } else { " " }, printable(line)));
    }
    told
}

fn summary(examination: &Examination) -> String {
    let count = |severity: Severity| examination.findings.iter().filter(|finding| finding.severity == severity).count();
    let counted = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let pools = counted(examination.pools, "pool");
    let found = match examination.findings.len() {
        0 => "nothing found".to_owned(),
        _ => format!(
            "{}, {}, {}",
            counted(count(Severity::Error), "error"),
            counted(count(Severity::Warning), "warning"),
            counted(count(Severity::Note), "note")
        ),
    };
    let unknown = match examination.not_known.len() {
        0 => String::new(),
        many => format!(
            "; {} could not be looked at",
            if many == 1 { "one kind of facts".to_owned() } else { format!("{many} kinds of facts") }
        ),
    };
    format!("{pools}, {} checks: {found}{unknown}\n", examination.checks)
}
