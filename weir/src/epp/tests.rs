//! Command lines of the charts, and everything that is wrong with others.

use std::collections::HashMap;
use std::ffi::OsString;

use weir_datastore::Scheme;
use weir_epp::exchange::ErrorPrefix;
use weir_epp::flow::HoldEmpty;
use weir_k8s::PoolVersion;

use super::options::{ConfigSource, Options, PoolSource};
use super::table::{PICKER, TABLE};
use crate::go_flags::{Effect, Given, Kind, duration_of};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn options_with(line: &str, env: &[(&str, &str)]) -> Result<Options, Vec<String>> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    Options::of(&Given::read(&PICKER, &words(line))?, &|name| env.get(name).map(|value| (*value).to_owned()))
}

fn options(line: &str) -> Options {
    options_with(line, &[]).unwrap_or_else(|wrong| panic!("{line}: {wrong:?}"))
}

fn refused(line: &str) -> String {
    options_with(line, &[]).expect_err(line).join("\n")
}

fn of_pool(options: &Options) -> (&str, &str, PoolVersion) {
    match &options.pool {
        PoolSource::Cluster { namespace, name, version } => (namespace, name, *version),
        other => panic!("{other:?}"),
    }
}

const OLD: PoolVersion = PoolVersion::V1Alpha2;
const V1: PoolVersion = PoolVersion::V1;

#[test]
fn the_command_lines_of_the_charts_are_understood() {
    let v040 = options("-poolName R -poolNamespace N -v 3 -grpcPort 9002 -grpcHealthPort 9003 -metricsPort 9090");
    assert_eq!(of_pool(&v040), ("N", "R", OLD));
    assert_eq!((v040.ext_proc_port, v040.health_port, v040.metrics_port), (9002, 9003, 9090));
    assert_eq!(v040.error_prefix, ErrorPrefix::InferenceGateway);
    assert!(v040.notes.is_empty() && v040.old && v040.secure && v040.metrics_access.auth, "{v040:?}");

    let v051 = options(
        "-poolName R -poolNamespace N --v 3 --grpcPort 9002 -grpcHealthPort 9003 -metricsPort 9090 \
         -configFile config/default-plugins.yaml --enablePprof=true --modelServerMetricsPath=/metrics \
         --modelServerMetricsScheme=http --modelServerMetricsHttpsInsecureSkipVerify=true",
    );
    assert_eq!(of_pool(&v051), ("N", "R", OLD));
    assert_eq!(v051.config, ConfigSource::File("config/default-plugins.yaml".into()));
    assert_eq!((v051.model_server.path.as_str(), v051.model_server.scheme), ("/metrics", Scheme::Http));
    assert_eq!(v051.notes, ["--enablePprof=true has no effect: there are no /debug/pprof pages"]);

    let v100 = "--pool-name R --pool-namespace N --zap-encoder json --config-file /config/default-plugins.yaml --v 1";
    assert_eq!(options(v100).error_prefix, ErrorPrefix::InferenceError);
    let mut line = words(v100);
    line.push("--error-prefix=inference gateway:".to_owned());
    let prefixed = Options::of(&Given::read(&PICKER, &line).unwrap(), &|_| None).unwrap();
    assert_eq!(prefixed.error_prefix, ErrorPrefix::InferenceGateway);
    assert!(refused(&format!("{v100} --error-prefix=gateway")).contains("give `inference error` or `inference gateway`"));
    let v102 = v100.replace("N --zap", "N --pool-group inference.networking.k8s.io --zap");
    let v110 = format!("{v102} --tracing false --metrics-endpoint-auth=false");
    let v150 = format!("{v102} --tracing=false");
    let head = v150.replace("--v 1", "--grpc-health-port 9003");
    for line in [v100, &v102, &v110, &v150, &head] {
        let read = options(line);
        assert_eq!(of_pool(&read), ("N", "R", V1), "{line}");
        assert_eq!(read.config, ConfigSource::File("/config/default-plugins.yaml".into()), "{line}");
        assert!(read.notes.is_empty() && !read.old, "{line}: {read:?}");
        assert_eq!(read.metrics_access.auth, line != v110, "{line}: the flag after a detached false counts");
    }

    let sglang = format!(
        "{v150} --total-queued-requests-metric=\"sglang:num_queue_reqs\" --lora-info-metric=\"\" --ha-enable-leader-election"
    );
    let notes = options(&sglang).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("sglang:num_queue_reqs has no effect: engines are recognised"), "{notes:?}");
}

#[test]
fn values_are_read_as_go_reads_them() {
    let pool = "--pool-name p";
    for (line, secure) in [
        ("--secure-serving", true),
        ("-secure-serving=false", false),
        ("--secureServing=F", false),
        ("--secure-serving false", false),
        ("--secure-serving false --secure-serving true", true),
        ("--secure-serving --v 3", true),
    ] {
        assert_eq!(options(&format!("{pool} {line}")).secure, secure, "{line}");
    }
    assert_eq!(options(&format!("{pool} -grpcPort=1 --grpc-port 2")).ext_proc_port, 2, "the last counts");
    assert_eq!(options(&format!("{pool} --config-text='a=b'")).config, ConfigSource::Text("a=b".to_owned()));
    let stray = options(&format!("{pool} stray -- --nonsense more")).notes;
    assert_eq!(stray, ["`stray` is no flag and is passed over", "`-- --nonsense more` is no flag and is passed over"]);
    for (text, milliseconds) in [
        ("50ms", 50),
        ("1.5s", 1500),
        ("1m30s", 90_000),
        ("0", 0),
        ("1h0.5m", 3_630_000),
        ("+2s", 2000),
        ("1500us", 1),
        ("1500µs", 1),
    ] {
        assert_eq!(duration_of(text).map(|duration| duration.as_millis()), Some(milliseconds), "{text}");
    }
    for text in ["", "5", "ms", "1d", "-1s", "1.2.3s", "1e400s", "99999999999999999999999h", "s1"] {
        assert_eq!(duration_of(text), None, "{text}");
    }
}

#[test]
fn what_cannot_be_heeded_is_refused_with_the_way_out() {
    assert!(refused("").contains("--pool-name NAME") && refused("").contains("--pools FILE"));
    assert!(refused("--pool-name p --endpoint-selector a=b").contains("give one"));
    assert!(refused("--endpoint-selector a=b").contains("needs 1 to 8"));
    assert!(refused("--endpoint-selector a!=b --endpoint-target-ports 1").contains("`a!=b` is no label"));
    assert!(refused("--endpoint-selector , --endpoint-target-ports 1").contains("names no label"));
    assert!(refused("--pool-nam p").contains("did you mean --pool-name?"));
    assert!(refused("--poolnName p").contains("did you mean --poolName?"));
    assert!(refused("--xyz").contains("weir epp --help"));
    assert!(refused("---pool-name p").contains("---pool-name: there is no such flag"));
    assert!(refused("--pool-name").contains("--pool-name: its value is missing"));
    assert!(refused("--pool-name p --grpc-port 70000").contains("`70000` is not a port"));
    assert!(refused("--pool-name p --refresh-metrics-interval 5").contains("is not a duration"));
    assert!(refused("--pool-name p --tracing=maybe").contains("is not true or false"));
    assert!(refused("--pool-name p --pool-group x").contains("inference.networking.k8s.io or inference.networking.x-k8s.io"));
    assert!(refused("--pool-name p --config-file a --config-text b").contains("give one"));
    assert!(refused("--pool-name p --model-server-metrics-scheme ftp").contains("neither http nor https"));
    assert!(refused("-poolName p -destinationEndpointHintKey x-other").contains("let the gateway read"));
    assert!(refused("-poolName p -DestinationEndpointHintMetadataNamespace=").contains("envoy.lb"));
    assert!(refused("--pool-name p --metrics-client-ca-file ca.crt").contains("--metrics-cert-dir"));
    assert!(refused("--pool-name p --bind-address localhost").contains("no IP address"));
    let all = refused("--pool-name p --nonsense --grpc-port x --tracing=x");
    assert_eq!(all.lines().count(), 3, "all at once: {all}");
    assert!(options("-poolName p -DestinationEndpointHintMetadataNamespace envoy.lb").old);
}

#[test]
fn variables_count_where_flags_say_nothing() {
    let with = |line: &str, env: &[(&str, &str)]| options_with(line, env).unwrap();
    let env = [
        ("POOL_NAME", "p"),
        ("NAMESPACE", "n"),
        ("GRPC_PORT", "1"),
        ("SECURE_SERVING", "false"),
        ("REFRESH_METRICS_INTERVAL", "1s"),
    ];
    let read = with("", &env);
    assert_eq!((of_pool(&read).0, read.ext_proc_port, read.secure, read.refresh.as_millis()), ("n", 1, false, 1000));
    let flags = with("--pool-name q --pool-namespace m --grpc-port 2 --secure-serving --refresh-metrics-interval 20ms", &env);
    assert_eq!((of_pool(&flags).0, flags.ext_proc_port, flags.secure, flags.refresh.as_millis()), ("m", 2, true, 20));
    assert_eq!(of_pool(&with("", &[("POOL_NAME", "p"), ("POOL_NAMESPACE", "a"), ("NAMESPACE", "b")])).0, "a");
    assert_eq!(of_pool(&with("--pool-name p", &[])).0, "default");
    // What a Service called grpc puts into every pod.
    let link = with("--pool-name p", &[("GRPC_PORT", "tcp://10.0.0.1:80")]);
    assert_eq!(link.ext_proc_port, 9002);
    assert!(link.notes[0].contains("GRPC_PORT is `tcp://10.0.0.1:80`"), "{:?}", link.notes);
    let saturation = with("--pool-name p", &[("SD_QUEUE_DEPTH_THRESHOLD", "9"), ("SD_KV_CACHE_UTIL_THRESHOLD", "2")]);
    assert_eq!((saturation.saturation.queue, saturation.saturation.kv_cache_utilization), (Some(9.0), None));
    let tracing = [("OTEL_TRACES_EXPORTER", "otlp"), ("EXPERIMENTAL_USE_SCHEDULER_V2", "true")];
    let on = with("--pool-name p", &tracing);
    assert_eq!((on.notes.len(), on.traces.is_some()), (1, true));
    // Charts set the variables whether it is on or not.
    let off = with("--pool-name p --tracing=false", &tracing);
    assert_eq!((off.notes.len(), off.traces), (1, None));
    assert_eq!(with("--pool-name p", &[]).traces, None);
    let clamped = with("--pool-name p --refresh-metrics-interval 1ms", &[]);
    assert_eq!((clamped.refresh.as_millis(), clamped.notes.len()), (20, 1));
    let key = options_with("--pool-name p", &[("DESTINATION_ENDPOINT_HINT_KEY", "x-other")]).unwrap_err();
    assert!(key[0].contains("let the gateway read"), "{key:?}");
    let standalone = with(
        "--endpoint-selector app=x --endpoint-target-ports 1,2 --endpoint-target-ports=2,3",
        &[("POD_NAME", "vllm-epp-5d8-x7")],
    );
    let expected = PoolSource::Selector {
        namespace: "default".into(),
        name: "vllm-epp".into(),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        ports: vec![1, 2, 3],
    };
    assert_eq!(standalone.pool, expected);
}

#[test]
fn under_the_name_epp_all_is_the_pickers() {
    let line = |arguments: &[&str]| {
        let line = PICKER.command_line(arguments.iter().map(OsString::from).collect());
        line.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&["/app/epp", "--pool-name", "p"]), "weir epp -- --pool-name p");
    assert_eq!(line(&["/usr/bin/epp"]), "weir epp --");
    let expected = "weir --log info,kube_runtime=error,kube_client=error --log-format json epp -- --v 1 --zap-encoder json";
    assert_eq!(line(&["weir", "epp", "--v", "1", "--zap-encoder", "json"]), expected);
    assert_eq!(line(&["weir", "serve", "--pools", "x"]), "weir serve --pools x");
    assert_eq!(line(&["weir"]), "weir");
    let filter = |line: &str| Given::read(&PICKER, &words(line)).unwrap().log_filter();
    assert_eq!(filter("--pool-name p"), None);
    assert_eq!(filter("-v 5"), Some("info,weir=trace"));
    assert_eq!(filter("-v 5 --zap-log-level error"), Some("error"));
}

#[test]
fn the_table_is_sound_and_the_help_lists_all_of_it() {
    let page = PICKER.help();
    let mut names = std::collections::HashSet::new();
    for flag in TABLE {
        let own: std::collections::HashSet<_> = [flag.name.to_owned(), flag.camel_case()].into();
        assert!(own.into_iter().all(|name| names.insert(name)), "{} twice", flag.name);
        assert!(page.contains(&format!("--{}", flag.name)), "{}", flag.name);
        if matches!(flag.effect, Effect::OnlyDefault(_)) {
            assert!(!flag.default.is_empty() && flag.kind == Kind::Text, "{}", flag.name);
        }
    }
}

#[test]
fn whether_requests_wait_for_an_empty_pool() {
    assert_eq!(options("--pool-name R").hold_empty, None);
    assert_eq!(options("--pool-name R --hold-empty=never").hold_empty, Some(HoldEmpty::Never));
    assert!(refused("--pool-name R --hold-empty sometimes").contains("`sometimes` is not known: give auto, always or never"));
}

#[test]
fn what_becomes_of_unknown_models_and_who_served() {
    let plain = options("--pool-name R");
    assert!(!plain.refuse_unknown_models && plain.served_header.is_none());
    let set = options("--pool-name R --unknown-models=refuse --served-header X-Inference-Served");
    assert!(set.refuse_unknown_models && set.served_header.as_deref() == Some("x-inference-served"));
    let wrong = refused("--pool-name R --unknown-models=maybe --served-header=a:b");
    assert!(wrong.contains("give pass or refuse") && wrong.contains("`a:b` is no name of a header"), "{wrong}");
}
