//! Command lines of the charts, and everything that is wrong with others.

use weir_bbr::plugin::Plugin;

use super::options::Options;
use super::table::{ROUTER, TABLE};
use crate::go_flags::Given;

fn options(arguments: &[&str], env: &[(&str, &str)]) -> Result<Options, Vec<String>> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let value = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Options::of(&Given::read(&ROUTER, &arguments)?, &value)
}

#[test]
fn the_command_lines_of_the_charts_are_understood() {
    let defaults = options(&[], &[]).unwrap();
    assert_eq!((defaults.ext_proc_port, defaults.health_port, defaults.metrics_port), (9004, 9005, 9090));
    assert!(!defaults.streaming && defaults.secure && defaults.metrics_access.auth && defaults.cluster.is_none());
    assert_eq!(defaults.plugins, Plugin::defaults());
    for old in [&["-streaming", "-v", "3"][..], &["--streaming", "--v", "3"]] {
        assert!(options(old, &[]).unwrap().streaming);
    }
    let fields = r#"body-field-to-header:model-extractor:{"fieldName":"model","headerName":"X-Gateway-Model-Name"}"#;
    let chart =
        ["--streaming", "--v", "3", "--plugin", fields, "--plugin", "base-model-to-header:base-model-mapper", "--tracing=false"];
    let options = options(&chart, &[("NAMESPACE", "models"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert_eq!((&options.plugins, options.namespace.as_deref()), (&Plugin::defaults(), Some("models")));
    assert!(options.cluster.is_some() && options.notes.is_empty(), "{:?}", options.notes);
}

#[test]
fn everything_that_is_wrong_is_told() {
    let wrong = options(
        &[
            "--plugin",
            "x",
            "--grpc-port=9090",
            "--bind-address=here",
            "--metrics-client-ca-file=ca",
            "--plugin=base-model-to-header:a",
            "--plugin=base-model-to-header:b",
        ],
        &[],
    )
    .unwrap_err()
    .join("\n");
    for wanted in [
        "--plugin x: write TYPE:NAME",
        "two of them set the header x-gateway-base-model-name",
        "--metrics-port: 9090 is the port of --grpc-port as well",
        "--bind-address: `here` is no IP address",
        "--metrics-client-ca-file: callers bring",
    ] {
        assert!(wrong.contains(wanted), "{wanted} in {wrong}");
    }
    assert_eq!(options(&["--stream"], &[]).unwrap_err(), ["--stream: there is no such flag: did you mean --streaming?"]);
    let help = ROUTER.help();
    assert!(TABLE.iter().all(|flag| help.contains(&format!("--{}", flag.name))));
}
