//! The file of rules: names, mappings and the classifier, read with the files of keywords that it names.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::classify::{ClassRule, Classifier};
use crate::mapping::{Mapping, Source};
use crate::names::NameRules;

/// No file of rules or of keywords is larger; a device would be.
const MOST_BYTES: u64 = 1 << 20;
/// What the file calls itself.
const VERSION: &str = "weir/v1";

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rules {
    /// `weir/v1`
    pub api_version: String,
    /// What models are called; without it names are taken as they come.
    pub names: Option<NameRules>,
    /// Base models and their adapters, beside those of ConfigMaps.
    pub mappings: Vec<Mapping>,
    /// Which requests go to a small model, and which to a large one.
    pub classifier: Vec<ClassRule>,
}

/// Rules that are sound, and the words of their files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The rules.
    pub rules: Rules,
    /// Ready to be asked.
    pub classifier: Classifier,
    /// The files they are from, by content: nothing has changed while these are the same.
    content: Vec<(PathBuf, Vec<u8>)>,
}

/// Why rules cannot be used.
#[derive(Debug, Error)]
pub enum RulesError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It says what it may not.
    #[error("{}: {}", path.display(), problems.join("\n"))]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong, each with its field and the way out.
        problems: Vec<String>,
    },
}

impl RulesError {
    /// As metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Wrong { .. } => "refused",
        }
    }
}

impl Rules {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let rules: Option<Self> = serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?;
        let rules = rules.unwrap_or_default();
        let mut wrong = Vec::new();
        if rules.api_version != VERSION {
            wrong.push(format!("apiVersion: `{}`: write {VERSION}", rules.api_version.escape_debug()));
        }
        wrong.extend(rules.names.iter().flat_map(NameRules::problems));
        let mappings = rules.mappings.iter().enumerate();
        wrong.extend(mappings.filter_map(|(position, mapping)| Some(format!("mappings[{position}].{}", mapping.problem()?))));
        for (position, rule) in rules.classifier.iter().enumerate() {
            wrong.extend(rule.problems(position));
            if rules.classifier[..position].iter().any(|before| before.name == rule.name) {
                wrong.push(format!(
                    "classifier[{position}].name: `{}` is there twice: metrics would not tell them apart",
                    rule.name
                ));
            }
        }
        if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
    }

    /// The mappings that it says itself.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let source = |(position, mapping): (usize, &Mapping)| Source {
            created: 0,
            name: format!("mappings[{position}]").into(),
            mapping: mapping.clone(),
        };
        self.mappings.iter().enumerate().map(source)
    }
}

impl Loaded {
    /// Rules of no file, and without files of keywords.
    ///
    /// # Errors
    /// The rule whose words are too many.
    pub fn of(rules: Rules) -> Result<Self, String> {
        let classifier = Classifier::new(rules.classifier.iter().map(|rule| (rule.clone(), Vec::new())))?;
        Ok(Self { rules, classifier, content: Vec::new() })
    }

    /// Reads the file, and those of keywords that it names, by their place beside it.
    ///
    /// # Errors
    /// A file that cannot be read, or is wrong.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        let wrong = |path: &Path, problems| RulesError::Wrong { path: path.to_owned(), problems };
        let mut content = Vec::new();
        let mut text = |path: PathBuf| {
            let bytes = read(&path)?;
            let text = String::from_utf8(bytes.clone());
            content.push((path.clone(), bytes));
            text.map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                wrong(&path, vec![format!("is not UTF-8 text at byte {at}: save it as UTF-8")])
            })
        };
        let rules = Rules::parse(&text(path.to_owned())?).map_err(|problems| wrong(path, problems))?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut all = Vec::new();
        for rule in &rules.classifier {
            let mut words = Vec::new();
            for file in &rule.keyword_files {
                let file = folder.join(file);
                let text = text(file.clone())?;
                for (number, line) in text.lines().enumerate() {
                    let word = line.trim_start_matches('\u{feff}').trim();
                    if let Some(problem) = crate::text::no_header_value(word) {
                        return Err(wrong(&file, vec![format!("line {}: {problem}", number + 1)]));
                    }
                    if !word.is_empty() && !word.starts_with('#') {
                        words.push(word.to_owned());
                    }
                }
            }
            all.push((rule.clone(), words));
        }
        let classifier = Classifier::new(all).map_err(|problem| wrong(path, vec![problem]))?;
        Ok(Self { rules, classifier, content })
    }

    /// Whether it was read from the same bytes as `other`.
    pub fn is_same(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RulesError> {
    let unreadable = |reason: String| RulesError::Unreadable { path: path.to_owned(), reason };
    let told = |error: std::io::Error| unreadable(error.to_string());
    // Asked before opening: opening a pipe would wait for a writer.
    if !path.metadata().map_err(told)?.is_file() {
        return Err(unreadable("is not a regular file".to_owned()));
    }
    let mut content = Vec::new();
    File::open(path).map_err(told)?.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(told)?;
    if content.len() as u64 > MOST_BYTES {
        return Err(unreadable(format!("is longer than {MOST_BYTES} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_its_files_of_keywords() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        let rule = "{ name: g, simple: a, complex: b, keywords: [], keywordFiles: [words/de.txt] }";
        std::fs::write(&path, format!("apiVersion: weir/v1\nclassifier: [{rule}]\n")).unwrap();
        let missing = Loaded::read(&path).unwrap_err();
        assert!(
            missing.label() == "unreadable" && missing.to_string().contains("de.txt: cannot be read: No such file"),
            "{missing}"
        );
        std::fs::create_dir(folder.path().join("words")).unwrap();
        let words = folder.path().join("words/de.txt");
        std::fs::write(&words, "\u{feff}# Deutsch\n\nüberprüfen\r\nentwerfen").unwrap();
        let loaded = Loaded::read(&path).unwrap();
        assert_eq!(loaded.classifier.listed().next().unwrap().1, ["überprüfen", "entwerfen"]);
        assert!(loaded.is_same(&Loaded::read(&path).unwrap()));
        std::fs::write(&words, "x").unwrap();
        assert!(!loaded.is_same(&Loaded::read(&path).unwrap()));
        std::fs::write(&words, b"a\n\xff").unwrap();
        assert!(Loaded::read(&path).unwrap_err().to_string().ends_with("de.txt: is not UTF-8 text at byte 2: save it as UTF-8"));
        std::fs::write(&words, "a\nb\u{1}").unwrap();
        assert!(Loaded::read(&path).unwrap_err().to_string().contains("de.txt: line 2: has the control character U+0001"));
        assert!(Loaded::read(folder.path()).unwrap_err().to_string().ends_with("is not a regular file"));
        std::fs::write(&path, "#".repeat(1 + (1 << 20))).unwrap();
        assert!(Loaded::read(&path).unwrap_err().to_string().ends_with("is longer than 1048576 bytes"));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let wrong = Rules::parse(
            "apiVersion: v1\nnames: { aliases: { a: a } }\nmappings: [{ baseModel: '' }]\n\
             classifier: [{ name: g, simple: a, complex: b }, { name: g, simple: '', complex: b }]\n",
        )
        .unwrap_err()
        .join("\n");
        for wanted in
            ["apiVersion: `v1`", "names.aliases.a: leads", "mappings[0].baseModel", "[1].simple", "[1].name: `g` is there twice"]
        {
            assert!(wrong.contains(wanted), "{wanted} in {wrong}");
        }
        assert!(Rules::parse("apiVersion: weir/v1\nname: {}\n").unwrap_err()[0].contains("unknown field"));
        assert!(Rules::parse("").unwrap_err()[0].starts_with("apiVersion: ``: write weir/v1"));
        assert_eq!(Rules::parse("apiVersion: weir/v1").unwrap().names, None);
    }
}
