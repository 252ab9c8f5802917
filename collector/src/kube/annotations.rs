//! What a pool's annotations say of how its pods' pages are read, and whether requests wait for it.
//!
//! One that cannot be used leaves the default in force, and is a problem of the pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_datastore::engine::Engine;
use weir_datastore::{RequiredOptions, Scheme};
use weir_k8s::FieldProblem;

use super::PodMetrics;
use crate::access::page_path;

/// The longest path, in bytes.
const LONGEST_PATH: usize = 1024;
/// Characters of a wrong value that an error repeats.
const SHOWN: usize = 64;

const ENGINE: &str = "engine";
const PATH: &str = "metrics-path";
const SCHEME: &str = "metrics-scheme";
const PORT: &str = "metrics-port";
const HOLD: &str = "hold";
/// Before the names of [`RequiredOptions`].
const REQUIRED: &str = "required-";

/// How the pages of a pool with `ports` target ports are read: by `annotations` under `prefix`, else by `default`.
pub(super) fn page_of(
    annotations: &BTreeMap<String, String>,
    prefix: &str,
    ports: usize,
    default: &PodMetrics,
) -> (PodMetrics, Vec<FieldProblem>) {
    let mut page = default.clone();
    let mut problems = Vec::new();
    let mut refuse = |name: &str, message: String| {
        problems.push(FieldProblem::new(format!("metadata.annotations[{prefix}{name}]"), message));
    };
    for (name, value) in annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value))) {
        let outcome = match name {
            ENGINE => engine(value).map(|engine| page.engine = engine),
            PATH => path(value).map(|path| page.path = path),
            SCHEME => scheme(value).map(|scheme| page.scheme = scheme),
            PORT => port(value).map(|port| page.port = Some(port)),
            HOLD => Ok(()),
            // The prefix has others too; only what can be nothing but a slip is one.
            other => match [ENGINE, PATH, SCHEME, PORT, HOLD].into_iter().find(|known| is_slip(other, known)) {
                Some(meant) => Err(format!("is not known: write {prefix}{meant}")),
                None => Ok(()),
            },
        };
        if let Err(message) = outcome {
            let shown: String = name.chars().take(SHOWN).collect();
            refuse(&shown, format!("{message}; the default is used"));
        }
    }
    if page.port.is_some() && ports > 1 {
        if annotations.contains_key(&format!("{prefix}{PORT}")) {
            refuse(PORT, format!("the pool has {ports} target ports, each with a page of its own; the target ports are used"));
        }
        page.port = None;
    }
    if page.scheme == Scheme::Http {
        let access = &mut page.access;
        let kept = crate::access::Access { restrict: access.restrict, port: access.port, ..Default::default() };
        if default.scheme == Scheme::Https && access.bearer_token_file.is_some() {
            refuse(SCHEME, "http: no token goes with requests in the clear; write https if the pages ask for one".to_owned());
        }
        *access = kept;
    }
    page.access.port = page.port;
    (page, problems)
}

/// Whether requests are to wait while the pool has no endpoint, whatever is known of one.
pub(super) fn hold_of(annotations: &BTreeMap<String, String>, prefix: &str) -> (bool, Option<FieldProblem>) {
    let name = format!("{prefix}{HOLD}");
    match annotations.get(&name).map(String::as_str) {
        None | Some("false") => (false, None),
        Some("true") => (true, None),
        Some(other) => {
            let message = format!("`{}` is neither true nor false: false is used", bounded(other));
            (false, Some(FieldProblem::new(format!("metadata.annotations[{name}]"), message)))
        }
    }
}

/// How the pool's required replicas are computed: what cannot be used is as for all pools.
pub(super) fn required_of(annotations: &BTreeMap<String, String>, prefix: &str) -> (RequiredOptions, Vec<FieldProblem>) {
    let (mut options, mut problems) = (RequiredOptions::default(), Vec::new());
    let of_it = |(key, value)| Some((str::strip_prefix(key, prefix)?.strip_prefix(REQUIRED)?, value));
    for (name, value) in annotations.iter().map(|(key, value)| (key.as_str(), value)).filter_map(of_it) {
        if let Err(message) = options.set(name, value) {
            let shown: String = name.chars().take(SHOWN).collect();
            let field = format!("metadata.annotations[{prefix}{REQUIRED}{shown}]");
            problems.push(FieldProblem::new(field, format!("{message}; the default is used")));
        }
    }
    (options, problems)
}

fn engine(text: &str) -> Result<Option<Engine>, String> {
    match text {
        "auto" => Ok(None),
        _ => match bounded(text).parse() {
            Ok(Engine::Custom) => {
                Err("`custom` needs families, which only pools.yaml can name: write auto or an engine's name".to_owned())
            }
            Ok(engine) => Ok(Some(engine)),
            Err(error) => Err(error.replace(", custom", "")),
        },
    }
}

fn path(text: &str) -> Result<Arc<str>, String> {
    if text.len() > LONGEST_PATH {
        return Err(format!("a path of {} bytes: at most {LONGEST_PATH}", text.len()));
    }
    page_path(text).map_err(|_| format!("`{}` is no path: write one as /metrics", bounded(text)))
}

fn scheme(text: &str) -> Result<Scheme, String> {
    match text {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        other => Err(format!("`{}` is not a scheme: write http or https", bounded(other))),
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("`{}` is no port: write a number from 1 to 65535", bounded(text)))
}

fn is_slip(given: &str, known: &str) -> bool {
    given.len() <= SHOWN && strsim::damerau_levenshtein(given, known) <= known.len() / 4
}

fn bounded(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn read(pairs: &[(&str, &str)], ports: usize, default: &PodMetrics) -> (PodMetrics, Vec<String>) {
        let annotations = pairs.iter().map(|(key, value)| (format!("x/{key}"), (*value).to_owned())).collect();
        let (page, problems) = page_of(&annotations, "x/", ports, default);
        (page, problems.iter().map(FieldProblem::to_string).collect())
    }

    #[test]
    fn a_pool_may_ask_for_its_requests_to_wait() {
        let of = |value: &str| hold_of(&BTreeMap::from([("weir.internal/hold".to_owned(), value.to_owned())]), "weir.internal/");
        assert_eq!((of("true"), of("false")), ((true, None), (false, None)));
        let (hold, problem) = of("yes");
        let problem = problem.unwrap();
        assert!(!hold && problem.field == "metadata.annotations[weir.internal/hold]", "{problem}");
        assert_eq!(hold_of(&BTreeMap::new(), "weir.internal/"), (false, None));
    }

    #[test]
    fn a_pool_says_how_its_required_replicas_are_computed() {
        let annotations = [
            ("x/required-daily", "true"),
            ("x/required-spares", "many"),
            ("x/required-weekly", "true"),
            ("y/required-spares", "1"),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let (options, problems) = required_of(&annotations, "x/");
        assert_eq!(options, RequiredOptions { daily: Some(true), ..RequiredOptions::default() });
        let problems: Vec<String> = problems.iter().map(FieldProblem::to_string).collect();
        assert_eq!(
            problems,
            [
                "metadata.annotations[x/required-spares]: `many` is no number of replicas: write 0 to 1000; the default is used",
                "metadata.annotations[x/required-weekly]: is not known: there are daily, recurring, spares, utilisation; the default is used",
            ]
        );
    }

    #[test]
    fn annotations_take_the_place_of_the_defaults() {
        let given = [
            ("engine", "sglang"),
            ("metrics-path", "/m?a=b"),
            ("metrics-scheme", "https"),
            ("metrics-port", "9000"),
            ("other", ""),
        ];
        let (page, problems) = read(&given, 1, &PodMetrics::default());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!((page.engine, &*page.path, page.scheme), (Some(Engine::Sglang), "/m?a=b", Scheme::Https));
        assert_eq!((page.port, page.access.port), (Some(9000), Some(9000)));
        let named = PodMetrics { engine: Some(Engine::Vllm), ..PodMetrics::default() };
        assert_eq!(read(&[("engine", "auto")], 1, &named).0.engine, None);
    }

    #[test]
    fn what_cannot_be_used_leaves_the_default_and_is_told() {
        let default = PodMetrics::default();
        for (name, value, words) in [
            ("engine", "vlm", "unknown engine `vlm`: one of auto"),
            ("engine", "custom", "only pools.yaml"),
            ("metrics-path", "metrics", "`metrics` is no path"),
            ("metrics-path", "/a b\n", "`/a b\\n` is no path"),
            ("metrics-scheme", "HTTPS", "write http or https"),
            ("metrics-port", "0", "`0` is no port"),
            ("metrics-port", "http", "is no port"),
            ("metric-port", "1", "write x/metrics-port"),
            ("engin", "vllm", "write x/engine"),
        ] {
            let (page, problems) = read(&[(name, value)], 1, &default);
            assert_eq!(page, default, "{name}={value}");
            assert_eq!(problems.len(), 1, "{name}={value}");
            assert!(problems[0].starts_with(&format!("metadata.annotations[x/{name}]: ")), "{}", problems[0]);
            assert!(problems[0].contains(words) && problems[0].ends_with("; the default is used"), "{}", problems[0]);
        }
        let long = "/".repeat(1025);
        assert!(read(&[("metrics-path", &long)], 1, &default).1[0].contains("1025 bytes"));
    }

    #[test]
    fn ranks_keep_their_own_ports() {
        let (page, problems) = read(&[("metrics-port", "9000")], 2, &PodMetrics::default());
        assert_eq!((page.port, page.access.port), (None, None));
        assert!(problems[0].contains("2 target ports"), "{problems:?}");
        // A default is for pools with one port, and no mistake of those with more.
        let default = PodMetrics { port: Some(9000), ..PodMetrics::default() };
        assert_eq!(read(&[], 2, &default).1, Vec::<String>::new());
    }

    #[test]
    fn no_token_travels_in_the_clear_because_a_pool_says_so() {
        let access = Access { bearer_token_file: Some("token".into()), server_name: Some("s".into()), ..Access::default() };
        let default = PodMetrics { scheme: Scheme::Https, access: access.clone(), ..PodMetrics::default() };
        assert_eq!(read(&[], 1, &default).0.access, access);
        let (page, problems) = read(&[("metrics-scheme", "http")], 1, &default);
        assert_eq!(page.access, Access::default());
        assert!(problems[0].contains("no token"), "{problems:?}");
    }
}
