//! The table, the codes and the servers' sources say the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weir_datastore::codes;

use crate::{CHECKS, Elsewhere};

/// The servers' crates.
const SERVERS: [&str; 8] = ["adapter", "collector", "datastore", "epp", "exporter", "scaler", "serving", "weir"];

fn sources() -> Vec<(PathBuf, String)> {
    fn within(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_test {
                within(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests beside the code name everything.
                found.push((path, text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()));
            }
        }
    }
    let mut found = Vec::new();
    for server in SERVERS {
        within(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(server).join("src"), &mut found);
    }
    found
}

#[test]
fn each_code_of_the_servers_is_a_check_and_is_named_where_it_is_met() {
    let sources = sources();
    let told: BTreeSet<&str> = CHECKS
        .iter()
        .filter(|check| matches!(check.elsewhere, Elsewhere::Told { log: true, .. }))
        .map(|check| check.code)
        .collect();
    let declared: BTreeSet<&str> = codes::ALL.iter().map(|(_, code)| *code).collect();
    assert_eq!(told, declared, "what a log names is declared in datastore/src/codes.rs, and nothing else is");
    for (name, code) in codes::ALL {
        let used = format!("codes::{name}");
        assert!(sources.iter().any(|(_, text)| text.contains(&used)), "no server names {code} ({used})");
    }
    // By constants alone, or a change of name would be half a change.
    for (path, text) in &sources {
        let literal = codes::ALL.iter().find(|(_, code)| text.contains(&format!("\"{code}\"")));
        assert!(literal.is_none() || path.ends_with("datastore/src/codes.rs"), "{}: {literal:?}", path.display());
    }
}

#[test]
fn each_metric_that_is_named_is_registered() {
    let sources = sources();
    for check in CHECKS {
        let Elsewhere::Told { metric, .. } = check.elsewhere else { continue };
        let family = metric.split('{').next().unwrap_or(metric).trim_end_matches("_total");
        let registered = format!("\"{family}\"");
        assert!(sources.iter().any(|(_, text)| text.contains(&registered)), "{}: no server registers {family}", check.code);
    }
}

#[test]
fn what_is_seen_from_outside_alone_says_why() {
    for check in CHECKS {
        if let Elsewhere::Outside(why) = check.elsewhere {
            assert!(why.len() > 20 && why.ends_with('.'), "{}: {why}", check.code);
        }
    }
}
