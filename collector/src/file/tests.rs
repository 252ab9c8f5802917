//! Good files, bad files with every word of the answer, and files that change.

use std::fmt::Write;
use std::path::Path;

use weir_datastore::engine::Engine;
use weir_datastore::{PoolId, RequiredOptions, Scheme};

use super::*;
use crate::access::{Access, Restrict};

mod families;
mod following;

/// What loading `text` complains of, without the path of the file.
fn complaints(text: impl AsRef<[u8]>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.yaml");
    std::fs::write(&path, text).unwrap();
    let error = PoolsFile::load(&path).expect_err("the file is bad").to_string();
    let in_folder = format!("{}/", folder.path().display());
    error.replace(&in_folder, "").lines().map(str::to_owned).collect()
}

fn load(text: &str) -> Vec<WantedPool> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.yaml");
    std::fs::write(&path, text).unwrap();
    PoolsFile::load(&path).unwrap_or_else(|error| panic!("{error}")).pools.to_vec()
}

/// A file with one pool, whose further lines are `lines`: they begin at line 4.
fn pool(lines: &str) -> String {
    format!("apiVersion: weir/v1\npools:\n- name: llama\n{lines}\n")
}

#[test]
fn options_of_required_replicas_have_bounds() {
    let told = complaints(pool("  endpoints: []\n  required: { daily: maybe, spares: 5000, utilisation: 2, dayly: true }"));
    let all = told.join("\n");
    for words in [
        "pools[0].required.daily: `maybe` is neither true nor false",
        "pools[0].required.spares: `5000` is no number of replicas: write 0 to 1000",
        "pools[0].required.utilisation: `2` is no share of a replica's capacity: write 0.3 to 1, as 0.75",
        "pools[0].required.dayly: unknown field: did you mean `daily`?",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    let told = complaints(pool("  endpoints: []\n  spares: 1"));
    assert!(told.join("").contains("does not belong here, but to a pool's `required`"), "{told:?}");
}

#[test]
fn a_file_with_everything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["vllm.internal".to_owned()]).unwrap().cert;
    std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("token"), "abc\n").unwrap();
    let path = folder.path().join("pools.yaml");
    let text = r#"
apiVersion: weir/v1
pools:
- name: vllm-llama3
  namespace: team-a
  engine: sglang
  endpoints:
  - "127.0.0.1:8000"
  - address: 10.0.0.7:8000
    pod: vllm-1
    labels: &labels { role: decode, version: 1.10, canary: yes, empty: "" }
  - { address: "[::1]:8001", pod: vllm-1, labels: *labels }
  - GPU-3.example.org:80
  pickers: []
  metrics:
    path: /prometheus/metrics
    scheme: https
    caFile: ca.pem
    serverName: vllm.internal
    insecureSkipVerify: false
    bearerTokenFile: token
  required: { daily: true, spares: 2, utilisation: 0.75 }
- name: "0x10"
  endpoints: []
"#;
    std::fs::write(&path, text).unwrap();
    let loaded = PoolsFile::load(&path).unwrap();
    let [full, bare] = loaded.pools.as_slice() else { panic!("two pools") };
    assert_eq!(full.spec.id, PoolId::new("team-a", "vllm-llama3"));
    assert_eq!(full.spec.metrics.engine, Some(Engine::Sglang));
    assert_eq!((full.spec.metrics.scheme, &*full.spec.metrics.path), (Scheme::Https, "/prometheus/metrics"));
    assert_eq!(full.spec.pickers, None);
    let required = RequiredOptions { daily: Some(true), recurring: None, spares: Some(2), utilisation: Some(75) };
    assert_eq!(full.spec.required, required);
    let endpoints: Vec<_> = full
        .spec
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address.as_str(), &*endpoint.pod, endpoint.rank, endpoint.labels.len()))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("127.0.0.1:8000", "127.0.0.1:8000", 0, 0),
            ("10.0.0.7:8000", "vllm-1", 0, 4),
            ("[::1]:8001", "vllm-1", 1, 4),
            ("gpu-3.example.org:80", "gpu-3.example.org:80", 0, 0),
        ]
    );
    let labels = &full.spec.endpoints[2].labels;
    assert_eq!((labels["version"].as_str(), labels["canary"].as_str(), labels["empty"].as_str()), ("1.10", "yes", ""));
    let access = Access {
        ca_file: Some(folder.path().join("ca.pem")),
        server_name: Some("vllm.internal".to_owned()),
        insecure_skip_verify: false,
        bearer_token_file: Some(folder.path().join("token")),
        bearer_token_may_be_absent: false,
        restrict: Restrict::Auto,
        port: None,
    };
    assert_eq!(full.access, access);
    assert_eq!(bare.spec, weir_datastore::PoolSpec::empty(PoolId::new("default", "0x10")));
    assert_eq!(bare.access, Access::default());
}

#[test]
fn small_files_are_read() {
    assert_eq!(load("apiVersion: weir/v1\npools: []\n"), []);
    let one = load(&pool("  engine: auto\n  endpoints: [localhost:8000]"));
    assert_eq!((one[0].spec.endpoints.len(), one[0].spec.metrics.engine), (1, None));
    assert_eq!(load("\u{feff}apiVersion: weir/v1\r\npools: []\r\n"), []);
    let json = r#"{"apiVersion": "weir/v1", "pools": [{"name": "llama", "endpoints": ["127.0.0.1:1"]}]}"#;
    assert_eq!(load(json)[0].spec.endpoints.len(), 1);
}

/// Each snippet and all that is said of it.
#[test]
fn what_is_wrong_is_said_with_line_column_field_and_way_out() {
    let rule = "RFC 1123: lower-case letters, digits, `-` and `.`, a letter or digit at both ends, at most 253 characters";
    let label_rule = "RFC 1123: lower-case letters, digits and `-`, a letter or digit at both ends, at most 63 characters";
    let cases: Vec<(String, Vec<String>)> = vec![
        (String::new(), vec!["1:1: is empty: write `apiVersion: weir/v1` and `pools:`".into()]),
        ("pools".into(), vec!["1:1: is text: write `apiVersion: weir/v1` and `pools:`".into()]),
        (
            "{}".into(),
            vec![
                "1:1: apiVersion: is missing: write `apiVersion: weir/v1`".into(),
                "1:1: pools: is missing: write `pools:` and below it `- name: …`".into(),
            ],
        ),
        (
            "apiVersion: weir/v2\npools:\n".into(),
            vec![
                "1:13: apiVersion: `weir/v2` is not a version that this weir reads: write `weir/v1`".into(),
                "2:6: pools: is empty: write a list of pools, `[]` for none".into(),
            ],
        ),
        (
            "apiversion: weir/v1\nPools: []\n".into(),
            vec![
                "1:1: apiversion: unknown field: did you mean `apiVersion`?".into(),
                "1:1: apiVersion: is missing: write `apiVersion: weir/v1`".into(),
                "1:1: pools: is missing: write `pools:` and below it `- name: …`".into(),
                "2:1: Pools: unknown field: did you mean `pools`?".into(),
            ],
        ),
        (
            pool("  endpoits: [127.0.0.1:8000]\n  zzz: 1\n  caFile: x\n  endpoints: []"),
            vec![
                "4:3: pools[0].endpoits: unknown field: did you mean `endpoints`?".into(),
                "5:3: pools[0].zzz: unknown field: there are name, namespace, engine, endpoints, pickers, metrics, required".into(),
                "6:3: pools[0].caFile: does not belong here, but to a pool's `metrics`".into(),
            ],
        ),
        (
            pool(""),
            vec!["3:3: pools[0].endpoints: is missing: list the servers as host:port, `endpoints: []` for none".into()],
        ),
        (
            pool("  endpoints:\n  - 127.0.0.1:0\n  - localhost\n  - 10.0.0.300:80\n  - http://a:80/metrics\n  - a:99999\n  - {pod: p}\n  -"),
            vec![
                "5:5: pools[0].endpoints[0]: `127.0.0.1:0`: port 0 cannot be connected to".into(),
                "6:5: pools[0].endpoints[1]: `localhost` has no port: write host:port".into(),
                "7:5: pools[0].endpoints[2]: `10.0.0.300:80`: `10.0.0.300` is neither an IP address (IPv6 in brackets) nor a host name".into(),
                "8:5: pools[0].endpoints[3]: `http://a:80/metrics` is a URL: write host:port, and scheme and path under `metrics`".into(),
                "9:5: pools[0].endpoints[4]: `a:99999`: the port must be a number from 1 to 65535".into(),
                "10:5: pools[0].endpoints[5].address: is missing: write `address: host:port`".into(),
                "11:4: pools[0].endpoints[6]: is empty: write host:port".into(),
            ],
        ),
        (
            pool("  endpoints:\n  - LOCALHOST:8000\n  - address: localhost:8000"),
            vec!["6:14: pools[0].endpoints[1].address: `localhost:8000` is already on line 5 of this pool: it would count twice, remove one".into()],
        ),
        (
            pool("  endpoints: []\n- name: llama\n  namespace: default\n  endpoints: []"),
            vec!["5:9: pools[1].name: pool `llama` of namespace `default` is already on line 3: put their endpoints together".into()],
        ),
        (
            "apiVersion: weir/v1\npools:\n- name: \"\"\n  endpoints: []\n- name: My_Pool\n  namespace: a.b\n  endpoints: []\n- endpoints: x\n".into(),
            vec![
                format!("3:9: pools[0].name: is empty: give a name ({})", rule.trim_start_matches("RFC 1123: ")),
                format!("6:14: pools[1].namespace: `a.b` is not a name that Kubernetes takes ({label_rule}); try `a-b`"),
                "8:3: pools[2].name: is missing: give the pool a name".into(),
                "8:14: pools[2].endpoints: is text: write a list of host:port, `[]` for none".into(),
            ],
        ),
        (
            "apiVersion: weir/v1\npools:\n- name: My_Pool\n  endpoints: []\n- 3\n".into(),
            vec![
                format!("3:9: pools[0].name: `My_Pool` is not a name that Kubernetes takes ({rule}); try `my-pool`"),
                "5:3: pools[1]: is a number: write a pool, with `name` and `endpoints`".into(),
            ],
        ),
        (
            pool("  engine: vlm\n  endpoints:\n  - {address: a:1, pod: P, labels: {a b: c, d: e f, g: [1]}}"),
            vec![
                "4:11: pools[0].engine: unknown engine `vlm`: one of auto, ".into(),
                format!("6:25: pools[0].endpoints[0].pod: `P` is not a name that Kubernetes takes ({rule}); try `p`"),
                "6:42: pools[0].endpoints[0].labels.a b: `a b` is not a label key: write `name` or `domain/name`, the name of letters, digits, `-`, `_` and `.`, at most 63 characters".into(),
                "6:48: pools[0].endpoints[0].labels.d: `e f` is not a label value: write letters, digits, `-`, `_` and `.`, a letter or digit at both ends, at most 63 characters".into(),
                "6:56: pools[0].endpoints[0].labels.g: is a list: write the label's value, \"\" for none".into(),
            ],
        ),
        (
            pool("  endpoints: []\n  metrics:\n    caFile: ca.pem\n    serverName: a b\n    insecureSkipVerify: true\n    bearerTokenFile: token"),
            vec![
                "6:13: pools[0].metrics.caFile: contradictory: there is no TLS with scheme http; set `scheme: https` or remove this".into(),
                "7:17: pools[0].metrics.serverName: `a b` is neither a host name nor an IP address".into(),
                "7:17: pools[0].metrics.serverName: contradictory: there is no TLS with scheme http; set `scheme: https` or remove this".into(),
                "8:25: pools[0].metrics.insecureSkipVerify: contradictory: there is no TLS with scheme http; set `scheme: https` or remove this".into(),
                "9:22: pools[0].metrics.bearerTokenFile: contradictory: with scheme http the token would travel in the clear; set `scheme: https` or remove this".into(),
            ],
        ),
        (
            pool("  endpoints: []\n  metrics: {scheme: https, insecureSkipVerify: true, serverName: a}"),
            vec!["5:66: pools[0].metrics.serverName: contradictory: with `insecureSkipVerify: true` no certificate is checked; remove one of them".into()],
        ),
        (
            pool("  endpoints: []\n  metrics: {scheme: https, caFile: none.pem, bearerTokenFile: pools.yaml}"),
            vec![
                "5:36: pools[0].metrics.caFile: none.pem cannot be read: No such file or directory (os error 2)".into(),
                "5:63: pools[0].metrics.bearerTokenFile: pools.yaml does not hold one token in printable characters".into(),
            ],
        ),
        (
            pool("  endpoints: []\n  metrics: {path: metrics, scheme: HTTPS, insecureSkipVerify: maybe, verify: no}"),
            vec![
                "5:19: pools[0].metrics.path: `metrics` is not a path: a path begins with `/`".into(),
                "5:36: pools[0].metrics.scheme: `HTTPS` is not a scheme: write http or https".into(),
                "5:63: pools[0].metrics.insecureSkipVerify: is text: write true or false".into(),
                "5:70: pools[0].metrics.verify: unknown field: there are path, scheme, families, restrict, caFile, serverName, insecureSkipVerify, bearerTokenFile".into(),
            ],
        ),
        (
            pool("  endpoints: []\n  metrics:\n  pickers:\n  - http://127.0.0.1:9090/metrics\n  - 127.0.0.1:9090"),
            vec![
                "5:10: pools[0].metrics: is empty: leave it out, or write `path`, `scheme`".into(),
                "8:5: pools[0].pickers[1]: 127.0.0.1:9090: not a URL (relative URL without a base): write http://host:port/metrics".into(),
            ],
        ),
        (
            pool("  endpoints: []\n  pickers:\n  - http://a:9090\n  - http://A:9090/metrics\n  - http://a:9090/other\n  - {url: 'http://b:1/x#y', name: 'a b', serverName: c, caFile: d}\n  - {name: x, uri: y}\n  - {url: 'http://c:1', name: 'a b'}\n  - [x]"),
            vec![
                "7:5: pools[0].pickers[1]: `http://a:9090/metrics` is already on line 6 of this pool: what it holds would count twice, remove one".into(),
                "8:5: pools[0].pickers[2]: a picker called `a:9090` is already on line 6 of this pool: give one of them another `name`".into(),
                "9:11: pools[0].pickers[3].url: `http://b:1/x#y`: a page has no fragment: leave out `#` and what follows".into(),
                "9:65: pools[0].pickers[3].caFile: d cannot be read: No such file or directory (os error 2)".into(),
                "10:5: pools[0].pickers[4].url: is missing: write `url: http://host:port/metrics`".into(),
                "10:15: pools[0].pickers[4].uri: unknown field: did you mean `url`?".into(),
                "11:31: pools[0].pickers[5].name: `a b` is not a name: write 1 to 253 bytes without blanks".into(),
                "12:5: pools[0].pickers[6]: is a list: write a URL such as http://127.0.0.1:9090/metrics".into(),
            ],
        ),
        // Text that is not YAML: the first mistake is all that can be said.
        (
            pool("  name: again\n  endpoints: []"),
            vec!["4:3: `name` is here a second time: remove one".into()],
        ),
        (
            pool("  endpoints: [127.0.0.1:8000\n  engine: vllm"),
            vec!["5:9: not YAML: illegal placement of ':' indicator: check indentation, quotes and brackets here and on the line before".into()],
        ),
        (
            pool("  endpoints: *all"),
            vec!["4:14: an alias (`*name`) of an anchor that is not defined: quote the text if `*` is part of it".into()],
        ),
        (
            "apiVersion: weir/v1\npools: []\n---\npools: []\n".into(),
            vec!["4:1: a second YAML document begins here: one file holds one list of pools".into()],
        ),
        (pool("  endpoints: &a [*a]"), vec!["4:18: an anchor that holds an alias of itself: write it out".into()]),
        (pool("  ? [a]\n  : b"), vec!["4:5: a key must be text: write `name: value`".into()]),
    ];
    let mut report = String::new();
    for (text, expected) in cases {
        let told = complaints(&text);
        let expected: Vec<String> = expected.into_iter().map(|line| format!("pools.yaml:{line}")).collect();
        // An expectation that ends in a blank is a beginning: the engines become more.
        let same = told.len() == expected.len()
            && told
                .iter()
                .zip(&expected)
                .all(|(told, expected)| told == expected || (expected.ends_with(' ') && told.starts_with(expected.as_str())));
        if !same {
            writeln!(report, "{text}\n--- told\n{}\n--- expected\n{}\n", told.join("\n"), expected.join("\n")).unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn bytes_that_are_not_text_are_placed() {
    let told = complaints(b"apiVersion: weir/v1\n# \xc3\xa9t\xe9\npools: []\n");
    assert_eq!(told, ["pools.yaml:2:5: byte 0xe9 is not UTF-8: save the file as UTF-8"]);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = PoolsFile::load(folder.path().join("pools.yaml")).unwrap_err().to_string();
    assert!(
        missing.ends_with(
            "pools.yaml: cannot be read: No such file or directory (os error 2): is the path right, and may weir read it?"
        ),
        "{missing}"
    );
    let a_folder = PoolsFile::load(folder.path()).unwrap_err().to_string();
    assert!(a_folder.contains("cannot be read: not a file"), "{a_folder}");
}

#[test]
fn a_file_over_the_limit_is_refused_whatever_is_in_it() {
    let text = "apiVersion: weir/v1\npools: []\n";
    let comment = |length: usize| format!("{text}#{}\n", "x".repeat(length - text.len() - 2));
    assert_eq!(load(&comment(LARGEST_FILE)), []);
    let told = complaints(comment(LARGEST_FILE + 1));
    assert_eq!(told, ["pools.yaml: larger than 1048576 bytes: is this a list of pools? split what is into several weirs"]);
}

#[test]
fn anchors_that_multiply_are_stopped() {
    let mut bomb = "apiVersion: weir/v1\npools:\n- &a0 {name: x, endpoints: [a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8]}\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(bomb, "- &a{level} [{aliases}]").unwrap();
    }
    let told = complaints(&bomb);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("aliases that stand for too much"), "{told:?}");
    let deep = |levels| complaints(format!("apiVersion: weir/v1\npools: {}{}\n", "[".repeat(levels), "]".repeat(levels)));
    assert!(deep(20)[0].contains("at most 16 levels"), "{:?}", deep(20));
    assert!(deep(100_000)[0].starts_with("pools.yaml:2:"), "{:?}", deep(100_000));
}

#[test]
fn endpoints_are_counted_over_all_pools() {
    let list = |from: usize, count: usize| {
        let lines: Vec<_> = (from..from + count).map(|host| format!("  - 10.0.{}.{}:80", host / 256, host % 256)).collect();
        lines.join("\n")
    };
    let file = |second| {
        let (first, second) = (list(0, 6000), list(6000, second));
        format!("apiVersion: weir/v1\npools:\n- name: a\n  endpoints:\n{first}\n- name: b\n  endpoints:\n{second}\n")
    };
    assert_eq!(load(&file(4000)).iter().map(|pool| pool.spec.endpoints.len()).sum::<usize>(), 10_000);
    let told = complaints(file(4001));
    assert_eq!(
        told,
        ["pools.yaml:10007:5: pools[1].endpoints[4000]: more than 10000 endpoints: share them out among several weirs"]
    );
}

#[test]
fn of_many_problems_the_first_are_told_and_all_are_counted() {
    let endpoints = "  - x\n".repeat(80);
    let told = complaints(pool(&format!("  endpoints:\n{endpoints}")));
    assert_eq!(told.len(), 51);
    assert!(told[0].starts_with("pools.yaml:5:5: pools[0].endpoints[0]: `x` has no port"), "{}", told[0]);
    assert_eq!(told[50], "pools.yaml: and 30 more");
}

#[test]
fn paths_of_other_files_start_at_the_folder_of_the_file() {
    let text = pool("  endpoints: []\n  metrics: {scheme: https, caFile: ca.pem}");
    let parsed = pools::parse(Path::new("/etc/weir/pools.yaml"), text.as_bytes()).unwrap_err().to_string();
    assert!(parsed.contains("/etc/weir/ca.pem cannot be read"), "{parsed}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}", lines in proptest::collection::vec("[-a-zA-Z0-9:\\[\\]{}&*!|>'\"#%@, ]{0,30}", 0..12)) {
        let path = Path::new("pools.yaml");
        for text in [text, lines.join("\n"), pool(&lines.join("\n  "))] {
            if let Err(error) = pools::parse(path, text.as_bytes()) {
                proptest::prop_assert!(error.to_string().starts_with("pools.yaml:"));
            }
        }
    }
}

#[test]
fn pickers_are_read_with_their_names_and_credentials() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "abc").unwrap();
    let path = folder.path().join("pools.yaml");
    // A token over plain HTTP: Go pickers have no other way.
    let pickers = "  endpoints: []\n  pickers:\n  - http://10.0.1.5:9090\n  - {url: 'http://[::1]:9090/x?y=z', name: b, bearerTokenFile: token}\n  - {url: 'https://c', insecureSkipVerify: true}";
    std::fs::write(&path, pool(pickers)).unwrap();
    let pools = PoolsFile::load(&path).unwrap_or_else(|error| panic!("{error}")).pools;
    let read: Vec<_> = pools[0].pickers.iter().map(|picker| (&*picker.name, &*picker.url)).collect();
    let expected =
        [("10.0.1.5:9090", "http://10.0.1.5:9090/metrics"), ("b", "http://[::1]:9090/x?y=z"), ("c:443", "https://c/metrics")];
    assert_eq!(read, expected);
    let names: Vec<_> = pools[0].spec.pickers.iter().flatten().map(|name| &**name).collect();
    assert_eq!(names, ["10.0.1.5:9090", "b", "c:443"]);
    assert_eq!(pools[0].pickers[1].access.bearer_token_file, Some(folder.path().join("token")));
    assert!(pools[0].pickers[2].access.insecure_skip_verify && pools[0].access == Access::default());
}

#[test]
fn credentials_of_a_picker_are_checked_like_those_of_endpoints() {
    let refused = |picker: &str| complaints(pool(&format!("  endpoints: []\n  pickers: [{picker}]"))).join("\n");
    assert!(
        refused("{url: 'http://a:1', caFile: x}").contains("there is no TLS with scheme http; write an https URL or remove this")
    );
    assert!(refused("{url: 'https://a:1', caFile: x}").contains("x cannot be read"));
    assert!(refused("{url: 'http://a:1', bearerTokenFile: nope}").contains("nope cannot be read"));
    assert!(refused("{url: 'https://a:1', serverName: b, insecureSkipVerify: true}").contains("no certificate is checked"));
    let many: Vec<_> = (1..=65).map(|port| format!("'http://a:{port}'")).collect();
    assert!(refused(&many.join(", ")).contains("pickers[64]: more than 64 replicas"));
}

#[test]
fn every_example_of_the_documentation_is_read() {
    let document = include_str!("../../../docs/pools-file.md");
    let examples: Vec<_> = document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2, "{}", examples.len());
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["vllm.internal".to_owned()]).unwrap().cert;
    std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("token"), "abc\n").unwrap();
    let path = folder.path().join("pools.yaml");
    for example in examples {
        std::fs::write(&path, example).unwrap();
        let loaded = PoolsFile::load(&path).unwrap_or_else(|error| panic!("{error}\n{example}"));
        assert_eq!(loaded.pools.len(), 1, "{example}");
    }
}
