//! Command lines as Go programs read them. Pure.
//!
//! `-x` is `--x`; a value follows `=` or is the next argument; a flag given again counts as given last. Beyond Go: a detached `true` or
//! `false` after a switch is its value (charts of v1.1 write it so, and Go took it for the end of the flags), and quotes around a value
//! go (charts of v1.5 write them for other engines than vLLM).

mod flag;
mod help;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

pub(crate) use self::flag::{Effect, Flag, Kind, Program, flag};

/// The flags of a command line.
#[derive(Debug, Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, String>,
    /// Spelled as up to v0.5.
    pub(crate) old_spelling: bool,
    /// Only the help is wanted.
    pub(crate) help: bool,
    /// What of it is passed over, and what happens instead.
    pub(crate) notes: Vec<String>,
}

impl Given {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(program: &Program, arguments: &[String]) -> Result<Self, Vec<String>> {
        let mut given = Self::default();
        let mut wrong = Vec::new();
        let mut rest = arguments.iter().peekable();
        while let Some(argument) = rest.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).filter(|flag| !flag.is_empty())
            else {
                let mut stray = argument.clone();
                if argument == "--" {
                    rest.by_ref().for_each(|more| stray.extend([" ", more]));
                }
                given.notes.push(format!("`{}` is no flag and is passed over", stray.escape_debug()));
                continue;
            };
            let (spelled, attached) = match flag.split_once('=') {
                Some((spelled, value)) => (spelled, Some(value)),
                None => (flag, None),
            };
            if spelled == "help" || spelled == "h" {
                given.help = true;
                continue;
            }
            let Some((flag, old)) = program.flag(spelled) else {
                wrong.push(unknown(program, spelled));
                continue;
            };
            given.old_spelling |= old;
            let value = match (attached, flag.kind) {
                (Some(value), _) => value.to_owned(),
                (None, Kind::Bool) => match rest.next_if(|next| bool_of(next).is_some()) {
                    Some(value) => value.clone(),
                    None => "true".to_owned(),
                },
                (None, _) => match rest.next() {
                    Some(value) => value.clone(),
                    None => {
                        wrong.push(format!("--{spelled}: its value is missing"));
                        continue;
                    }
                },
            };
            given.take(flag, spelled, unquoted(&value), &mut wrong);
        }
        if wrong.is_empty() { Ok(given) } else { Err(wrong) }
    }

    fn take(&mut self, flag: &'static Flag, spelled: &str, value: &str, wrong: &mut Vec<String>) {
        let fits = match flag.kind {
            Kind::Text | Kind::Texts => None,
            Kind::Bool => bool_of(value).is_none().then_some("true or false"),
            Kind::Port => value.parse::<u16>().is_err().then_some("a port"),
            Kind::Ports => ports_of(value).is_none().then_some("ports with commas between"),
            Kind::Number => value.parse::<i64>().is_err().then_some("a whole number"),
            Kind::Duration => duration_of(value).is_none().then_some("a duration such as 50ms or 1m30s"),
        };
        if let Some(expected) = fits {
            wrong.push(format!("--{spelled}: `{}` is not {expected}", value.escape_debug()));
            return;
        }
        let is = |other: &str| match flag.kind {
            Kind::Bool => bool_of(value) == bool_of(other),
            Kind::Duration => duration_of(value) == duration_of(other),
            _ => value == other,
        };
        match flag.effect {
            Effect::OnlyDefault(way_out) if !is(flag.default) => {
                wrong.push(format!("--{spelled}: only `{}` is built: {way_out}", flag.default));
                return;
            }
            Effect::Instead(quiet, instead) if !is(quiet) && !value.is_empty() => {
                let note = format!("--{spelled}={} has no effect: {instead}", value.escape_debug());
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
            _ => {}
        }
        let value = value.to_owned();
        match self.values.get_mut(flag.name) {
            Some(before) if flag.kind == Kind::Ports => *before = format!("{before},{value}"),
            // No argument has a zero byte.
            Some(before) if flag.kind == Kind::Texts => *before = format!("{before}\0{value}"),
            _ => drop(self.values.insert(flag.name, value)),
        }
    }

    /// The text of `flag`, unless it is empty.
    pub(crate) fn text(&self, flag: &str) -> Option<&str> {
        self.values.get(flag).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// What is logged, as `--log` says it; none where the command line says nothing.
    pub(crate) fn log_filter(&self) -> Option<&'static str> {
        const USUAL: &str = "info,kube_runtime=error,kube_client=error";
        const DEBUG: &str = "info,weir=debug,kube_runtime=error,kube_client=error";
        let by_number = |level: i64| match level {
            ..=3 => USUAL,
            4 => DEBUG,
            _ => "info,weir=trace",
        };
        match self.text("zap-log-level") {
            Some("debug") => Some(DEBUG),
            Some("error" | "panic") => Some("error"),
            Some(level) => Some(level.parse().map_or(USUAL, by_number)),
            None => self.parsed("v").map(by_number),
        }
    }

    /// The texts of `flag`, in their order.
    pub(crate) fn texts(&self, flag: &str) -> impl Iterator<Item = &str> {
        self.text(flag).into_iter().flat_map(|texts| texts.split('\0'))
    }

    /// Whether `flag` is on.
    pub(crate) fn switch(&self, flag: &str) -> Option<bool> {
        bool_of(self.values.get(flag)?)
    }

    /// The port, number or the like of `flag`.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, flag: &str) -> Option<T> {
        self.values.get(flag)?.parse().ok()
    }

    /// The duration of `flag`.
    pub(crate) fn duration(&self, flag: &str) -> Option<Duration> {
        duration_of(self.values.get(flag)?)
    }

    /// The ports of `flag`, each once.
    pub(crate) fn ports(&self, flag: &str) -> Vec<u16> {
        let mut ports = Vec::new();
        for port in self.values.get(flag).and_then(|ports| ports_of(ports)).into_iter().flatten() {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }
}

impl Program {
    /// A command line as `weir`'s own arguments: under the program's name all of it is the program's, and its flags of logging are those
    /// of weir.
    pub(crate) fn command_line(&self, arguments: Vec<OsString>) -> Vec<OsString> {
        let mut arguments = arguments;
        let is_named = arguments.first().is_some_and(|name| Path::new(name).file_stem().is_some_and(|name| name == self.name));
        let begin = match (is_named, arguments.get(1)) {
            (true, first) if first.is_none_or(|first| first != self.name) => 1,
            (_, Some(first)) if first == self.name => 2,
            _ => return arguments,
        };
        let own = arguments.split_off(begin);
        let texts: Vec<String> = own.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let mut line: Vec<OsString> = vec!["weir".into()];
        // What is wrong with it is told by who runs it.
        if let Ok(given) = Given::read(self, &texts) {
            if let Some(filter) = given.log_filter() {
                line.extend(["--log".into(), filter.into()]);
            }
            if given.text("zap-encoder") == Some("json") {
                line.extend(["--log-format".into(), "json".into()]);
            }
        }
        line.extend([self.name.into(), "--".into()]);
        line.extend(own);
        line
    }
}

fn unknown(program: &Program, spelled: &str) -> String {
    let names = program.table.iter().flat_map(|flag| [flag.name.to_owned(), flag.camel_case()]);
    let nearest = names.max_by(|one, other| strsim::jaro_winkler(one, spelled).total_cmp(&strsim::jaro_winkler(other, spelled)));
    let nearest = nearest.filter(|nearest| strsim::jaro_winkler(nearest, spelled) > 0.8);
    let hint =
        nearest.map_or_else(|| format!("weir {} --help lists them", program.name), |nearest| format!("did you mean --{nearest}?"));
    format!("--{}: there is no such flag: {hint}", spelled.escape_debug())
}

/// Without the quotes that a shell would have taken away.
fn unquoted(value: &str) -> &str {
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

/// Go's `strconv.ParseBool`.
pub(crate) fn bool_of(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration`, without negative ones.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn ports_of(text: &str) -> Option<Vec<u16>> {
    text.split(',').map(|port| port.trim().parse().ok().filter(|port| *port > 0)).collect()
}
