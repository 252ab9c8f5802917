//! `weir doctor` and `weir explain`, also as `kubectl weir …`: facts off a cluster or a file, examined, explained and told.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use weir_doctor::{
    Examination, ExplainError, Explanation, Facts, GatherOptions, Gatherer, examine, explain_autoscaler, explain_pool, report,
};

use crate::args::{DoctorArguments, DoctorOutput, ExplainArguments, ExplainKind};

/// It could not look.
const COULD_NOT_LOOK: u8 = 3;

/// The command line, where kubectl runs this program as its plugin: the help then says what was typed.
pub(crate) fn command_line(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let is_plugin = |name: &OsString| Path::new(name).file_stem().is_some_and(|name| name == "kubectl-weir");
    arguments
        .enumerate()
        .map(move |(position, argument)| if position == 0 && is_plugin(&argument) { "kubectl weir".into() } else { argument })
}

/// Gathers, examines, tells; returns by the worst that was found.
pub(crate) async fn run(arguments: DoctorArguments) -> ExitCode {
    match examined(&arguments).await.and_then(|examination| told(&arguments, examination)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("weir doctor: {error:#}");
            ExitCode::from(COULD_NOT_LOOK)
        }
    }
}

async fn examined(arguments: &DoctorArguments) -> anyhow::Result<Examination> {
    let facts = match &arguments.from {
        Some(path) => Facts::read(path)?,
        None => gathered(arguments).await?,
    };
    if let Some(path) = &arguments.record {
        facts.write(path)?;
    }
    let examination = examine(&facts);
    Ok(match &arguments.pool {
        Some(pool) => examination.about(pool),
        None => examination,
    })
}

async fn gathered(arguments: &DoctorArguments) -> anyhow::Result<Facts> {
    let client = arguments.cluster.options().connect_without_retries().await?;
    let options = GatherOptions { namespace: arguments.namespace.clone(), deadline: arguments.timeout, ..GatherOptions::default() };
    Ok(Gatherer::new(client, options).gather(SystemTime::now(), &progress()).await?)
}

/// Tells people at a terminal what is being done.
fn progress() -> impl Fn(&str) + Sync {
    let shown = std::io::stderr().is_terminal();
    move |doing: &str| {
        if shown {
            eprintln!("weir: {doing}");
        }
    }
}

/// `weir explain`.
pub(crate) async fn explain(arguments: ExplainArguments) -> anyhow::Result<()> {
    let client = arguments.cluster.options().connect_without_retries().await?;
    let namespace = arguments.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let options = GatherOptions { namespace: Some(namespace.clone()), deadline: arguments.timeout, ..GatherOptions::default() };
    let gatherer = Gatherer::new(client, options);
    let mut facts = gatherer.gather(SystemTime::now(), &progress()).await?;
    let explained = match (arguments.kind, arguments.name) {
        (ExplainKind::Pool, name) => vec![explain_pool(&facts, &namespace, &name.unwrap_or_default())],
        (ExplainKind::Hpa, name) => {
            gatherer.remember(&mut facts, &namespace).await;
            let names = name.map_or_else(|| Gatherer::autoscalers(&facts, &namespace), |name| vec![name]);
            let readings = gatherer.readings(&facts, &namespace, &names, SystemTime::now()).await;
            let explained =
                names.iter().zip(&readings).map(|(name, readings)| explain_autoscaler(&facts, &namespace, name, readings));
            explained.collect()
        }
    };
    written(&explanations(explained, arguments.output)?)
}

/// Explanations in their form; an object that cannot be explained is an error only where it is the only one.
fn explanations(mut explained: Vec<Result<Explanation, ExplainError>>, form: DoctorOutput) -> anyhow::Result<String> {
    if explained.len() == 1 {
        explained = vec![Ok(explained.remove(0)?)];
    }
    match form {
        DoctorOutput::Json => {
            let told = explained.into_iter().map(|one| match one {
                Ok(explanation) => serde_json::to_value(explanation),
                Err(error) => Ok(serde_json::json!({"error": error.to_string()})),
            });
            let told: Vec<_> = told.collect::<Result<_, _>>()?;
            Ok(format!("{:#}\n", serde_json::json!({"explanations": told})))
        }
        DoctorOutput::Text => {
            let texts = explained.into_iter().map(|one| match one {
                // Names and messages are written by others: they are not to move the cursor.
                Ok(explanation) => explanation.lines.iter().map(|line| plain(line) + "\n").collect(),
                Err(error) => plain(&error.to_string()) + "\n",
            });
            Ok(texts.collect::<Vec<String>>().join("\n"))
        }
    }
}

fn plain(line: &str) -> String {
    line.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Writes to whoever may have had enough.
fn written(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn told(arguments: &DoctorArguments, examination: Examination) -> anyhow::Result<u8> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match arguments.output {
        DoctorOutput::Text => report::text(&examination, colour),
        DoctorOutput::Json => report::json(&examination)?,
    };
    written(&text)?;
    Ok(examination.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(line: &[&str]) -> Result<DoctorArguments, String> {
        let line = command_line(line.iter().map(OsString::from));
        match Arguments::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Doctor(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kubectl_runs_it_as_its_plugin() {
        let arguments = parse(&["/usr/local/bin/kubectl-weir", "doctor", "-n", "team-a", "-o", "json"]).unwrap();
        assert_eq!(arguments.namespace.as_deref(), Some("team-a"));
        let help = parse(&["kubectl-weir", "doctor", "--help"]).unwrap_err();
        assert!(help.contains("Usage: kubectl weir doctor"), "{help}");
    }

    #[test]
    fn a_record_needs_no_cluster_and_says_so() {
        assert!(parse(&["weir", "doctor", "--from", "f", "--context", "c"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["weir", "doctor", "--from", "f", "--pool", "p"]).is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_finding() {
        let arguments = parse(&["weir", "doctor", "--from", "/nowhere/facts.json"]).unwrap();
        assert_eq!(format!("{:?}", run(arguments).await), format!("{:?}", ExitCode::from(COULD_NOT_LOOK)));
    }
}
