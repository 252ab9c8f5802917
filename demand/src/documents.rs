//! What is kept: one document per pool under its key. Reading, what is worth writing, and the bound on its size; pure.

use std::collections::{BTreeMap, BTreeSet};

use weir_datastore::PoolId;
use weir_hpa::required::{LEARNED_VERSION, Learned};

/// Most bytes of all documents and keys: a ConfigMap takes 1 MiB with everything around them.
pub const MOST_BYTES: usize = 900_000;
/// Longest key of a ConfigMap.
const LONGEST_KEY: usize = 253;
/// Longest text that is read: three days take 20 KB.
const LONGEST_DOCUMENT: usize = 256 * 1024;
/// Costs that differ by less are the same.
const SAME_COST: f64 = 0.01;
/// Lengths of requests that differ by less are the same.
const SAME_LENGTH: f64 = 0.1;

/// Documents by key, as they are written.
pub type Texts = BTreeMap<String, String>;

/// The key of a pool: `namespace.name`, where a namespace has no dots. None where that is no key of a ConfigMap.
pub fn key(pool: &PoolId) -> Option<String> {
    let key = format!("{}.{}", pool.namespace, pool.name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (key.len() <= LONGEST_KEY && key.bytes().all(allowed)).then_some(key)
}

/// A document as it was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// As written.
    pub text: String,
    /// What it says, or why it is not used.
    pub learned: Result<Learned, String>,
}

impl Document {
    /// Reads `text`.
    pub fn read(text: &str) -> Self {
        let learned = if text.len() > LONGEST_DOCUMENT {
            Err(format!("it has {} bytes, at most {LONGEST_DOCUMENT} are read", text.len()))
        } else {
            serde_json::from_str::<Learned>(text).map_err(|error| format!("it is no such document: {error}"))
        };
        let learned = learned.and_then(|learned| {
            let checked = learned.check(&learned.fingerprint).map_err(|error| error.to_string());
            checked.map(|()| learned)
        });
        Self { text: text.to_owned(), learned }
    }

    /// What weir writes of `learned`.
    fn of(learned: &Learned) -> Option<Self> {
        let text = serde_json::to_string(learned).ok()?;
        Some(Self { text, learned: Ok(learned.clone()) })
    }
}

/// Whether anything was learned at all.
pub fn is_worth_keeping(learned: &Learned) -> bool {
    learned.version == LEARNED_VERSION
        && !learned.fingerprint.is_empty()
        && (learned.samples > 0 || learned.starts > 0 || learned.healthy_tokens_per_second > 0.0 || !learned.days.is_empty())
}

/// Whether `new` says something else than `old`: numbers that move by themselves are no reason to write.
pub fn differs(old: &Learned, new: &Learned) -> bool {
    let moved = |old: f64, new: f64, by: f64| (old - new).abs() > by * old.abs().max(new.abs());
    let option = |old: Option<f64>, new: Option<f64>, by: f64| match (old, new) {
        (Some(old), Some(new)) => moved(old, new, by),
        (old, new) => old.is_some() != new.is_some(),
    };
    old.fingerprint != new.fingerprint
        || option(old.seconds_per_prompt_token, new.seconds_per_prompt_token, SAME_COST)
        || option(old.seconds_per_generated_token, new.seconds_per_generated_token, SAME_COST)
        || moved(old.healthy_tokens_per_second, new.healthy_tokens_per_second, SAME_COST)
        || option(old.start_seconds, new.start_seconds, SAME_COST)
        || option(old.prompt_tokens, new.prompt_tokens, SAME_LENGTH)
        || moved(old.output_tokens, new.output_tokens, SAME_LENGTH)
        || old.days != new.days
}

/// What was left out for its size.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LeftOut {
    /// Documents without their days.
    pub days: usize,
    /// Pools without a document.
    pub pools: usize,
}

/// What is to be written: `known` with what was `learned` since, in at most `most` bytes; none where that says nothing new. A document
/// that cannot be read stays as it is: a newer weir may have written it.
pub fn renewed(known: &BTreeMap<String, Document>, learned: &BTreeMap<String, Learned>, most: usize) -> (Option<Texts>, LeftOut) {
    let mut documents = known.clone();
    for (key, learned) in learned.iter().filter(|(_, learned)| is_worth_keeping(learned)) {
        let keeps = |known: &Document| known.learned.as_ref().map_or(true, |known| !differs(known, learned));
        if known.get(key).is_some_and(keeps) {
            continue;
        }
        if let Some(document) = Document::of(learned) {
            documents.insert(key.clone(), document);
        }
    }
    let left_out = bound(&mut documents, &learned.keys().collect(), most);
    let same = documents.len() == known.len()
        && documents.iter().all(|(key, document)| known.get(key).is_some_and(|known| known.text == document.text));
    let texts = || documents.into_iter().map(|(key, document)| (key, document.text)).collect();
    ((!same).then(texts), left_out)
}

/// Leaves out the days first, then pools that are gone, then those of which the least is known.
fn bound(documents: &mut BTreeMap<String, Document>, present: &BTreeSet<&String>, most: usize) -> LeftOut {
    let size = |key: &str, document: &Document| key.len() + document.text.len();
    let mut total: usize = documents.iter().map(|(key, document)| size(key, document)).sum();
    let mut left_out = LeftOut::default();
    if total <= most {
        return left_out;
    }
    for document in documents.values_mut() {
        let Ok(learned) = &document.learned else { continue };
        if learned.days.is_empty() {
            continue;
        }
        if let Some(shorter) = Document::of(&Learned { days: Vec::new(), ..learned.clone() }) {
            total -= document.text.len() - shorter.text.len().min(document.text.len());
            *document = shorter;
            left_out.days += 1;
        }
    }
    let mut order: Vec<(bool, u64, String)> = documents
        .iter()
        .map(|(key, document)| (present.contains(key), document.learned.as_ref().map_or(0, |learned| learned.samples), key.clone()))
        .collect();
    order.sort();
    for (_, _, key) in order {
        if total <= most {
            break;
        }
        if let Some(document) = documents.remove(&key) {
            total -= size(&key, &document).min(total);
            left_out.pools += 1;
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use weir_hpa::required::Day;

    use super::*;

    fn learned(samples: u64, days: usize) -> Learned {
        Learned {
            version: LEARNED_VERSION,
            fingerprint: "vllm:m".into(),
            seconds_per_prompt_token: Some(1e-4),
            seconds_per_generated_token: Some(2e-4),
            samples,
            busy_seconds: 30.0,
            healthy_tokens_per_second: 0.0,
            start_seconds: None,
            starts: 0,
            prompt_tokens: Some(500.0),
            output_tokens: 200.0,
            days: (0..days).map(|day| Day { day: day as u64, tokens: vec![Some((1000, 1000)); 288] }).collect(),
        }
    }

    fn documents(of: &[(&str, Learned)]) -> BTreeMap<String, Document> {
        of.iter().map(|(key, learned)| ((*key).to_owned(), Document::of(learned).unwrap())).collect()
    }

    fn learning(of: &[(&str, Learned)]) -> BTreeMap<String, Learned> {
        of.iter().map(|(key, learned)| ((*key).to_owned(), learned.clone())).collect()
    }

    #[test]
    fn keys_are_those_of_a_config_map() {
        assert_eq!(key(&PoolId::new("default", "vllm-llama3.v2")).as_deref(), Some("default.vllm-llama3.v2"));
        assert_eq!(key(&PoolId::new("default", "a/b")), None);
        assert_eq!(key(&PoolId::new("default", &"a".repeat(250))), None);
    }

    #[test]
    fn only_what_says_something_new_is_written() {
        let known = documents(&[("a.p", learned(3, 0))]);
        let slightly = Learned { seconds_per_prompt_token: Some(1.005e-4), samples: 9, output_tokens: 205.0, ..learned(3, 0) };
        assert_eq!(renewed(&known, &learning(&[("a.p", slightly)]), MOST_BYTES).0, None);
        let dearer = Learned { seconds_per_prompt_token: Some(1.1e-4), ..learned(4, 0) };
        let (texts, left_out) = renewed(&known, &learning(&[("a.p", dearer.clone()), ("a.q", learned(0, 0))]), MOST_BYTES);
        let texts = texts.unwrap();
        assert_eq!(texts.keys().collect::<Vec<_>>(), ["a.p"], "of q nothing was learned");
        assert_eq!(Document::read(&texts["a.p"]).learned.unwrap().samples, 4);
        assert_eq!(left_out, LeftOut::default());
    }

    #[test]
    fn a_document_that_cannot_be_read_says_why_and_stays() {
        for (text, why) in [
            ("{", "no such document"),
            ("{\"version\":1}", "missing field"),
            (&*serde_json::to_string(&Learned { version: 2, ..learned(1, 0) }).unwrap(), "version 2"),
            (&*serde_json::to_string(&Learned { output_tokens: -1.0, ..learned(1, 0) }).unwrap(), "outputTokens"),
            (&*" ".repeat(LONGEST_DOCUMENT + 1), "at most"),
        ] {
            let document = Document::read(text);
            assert!(document.learned.as_ref().unwrap_err().contains(why), "{why}: {:?}", document.learned);
            let known = BTreeMap::from([("a.p".to_owned(), document)]);
            assert_eq!(renewed(&known, &learning(&[("a.p", learned(9, 0))]), MOST_BYTES).0, None);
        }
    }

    #[test]
    fn days_go_first_then_pools_that_are_gone_then_the_least_known() {
        let known = documents(&[("a.gone", learned(99, 0)), ("a.p", learned(5, 0))]);
        let now = learning(&[("a.p", learned(5, 2)), ("a.q", learned(1, 2))]);
        let (all, left_out) = renewed(&known, &now, MOST_BYTES);
        assert_eq!((all.unwrap().len(), left_out), (3, LeftOut::default()));
        let one = known["a.p"].text.len() + 10;
        let (texts, left_out) = renewed(&known, &now, 3 * one);
        assert_eq!((texts.unwrap().len(), left_out), (3, LeftOut { days: 2, pools: 0 }));
        let (texts, left_out) = renewed(&known, &now, 2 * one);
        assert_eq!(
            (texts.unwrap().into_keys().collect::<Vec<_>>(), left_out),
            (vec!["a.p".into(), "a.q".into()], LeftOut { days: 2, pools: 1 })
        );
        let (texts, left_out) = renewed(&known, &now, one);
        assert_eq!((texts.unwrap().into_keys().collect::<Vec<_>>(), left_out.pools), (vec!["a.p".to_owned()], 2));
        // Nothing is written again and again for what does not fit.
        let fitting = documents(&[("a.p", learned(5, 0))]);
        assert_eq!(renewed(&fitting, &now, one).0, None);
    }
}
