use super::*;

fn read(wanted: Option<bool>, variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
    let mut notes = Vec::new();
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    (Settings::of(&env, wanted, "picker", &mut notes), notes)
}

fn sound(variables: &[(&str, &str)]) -> Settings {
    let (settings, notes) = read(None, variables);
    assert_eq!(notes, Vec::<String>::new());
    settings.unwrap()
}

const OTLP: (&str, &str) = ("OTEL_TRACES_EXPORTER", "otlp");
const AT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[test]
fn spans_are_sent_where_a_collector_is_named_and_nobody_forbids_it() {
    assert_eq!(read(None, &[]), (None, vec![]));
    assert_eq!(read(Some(false), &[OTLP]), (None, vec![]));
    assert_eq!(read(None, &[("OTEL_TRACES_EXPORTER", "none"), (AT, "http://a:4317")]), (None, vec![]));
    assert_eq!(read(None, &[OTLP, ("OTEL_SDK_DISABLED", "TRUE")]), (None, vec![]));
    assert!(read(Some(true), &[]).1[0].contains("no collector is named"));
    let (off, notes) = read(Some(true), &[("OTEL_TRACES_EXPORTER", "console")]);
    assert!(off.is_none() && notes[0].contains("OTEL_TRACES_EXPORTER=otlp"), "{notes:?}");
    assert_eq!(sound(&[OTLP]).endpoint, LOCAL);
    assert_eq!(sound(&[(AT, "http://a:4317")]).protocol, Protocol::Grpc);
}

#[test]
fn the_address_says_how_unless_the_protocol_is_named() {
    let of = |at: &str| {
        let settings = sound(&[(AT, at)]);
        (settings.protocol, settings.endpoint)
    };
    let (grpc, http) = (Protocol::Grpc, Protocol::Http);
    assert_eq!(of("http://otel:4317"), (grpc, "http://otel:4317".into()));
    assert_eq!(of("otel:4317"), (grpc, "http://otel:4317".into()));
    assert_eq!(of("http://otel:4318"), (http, "http://otel:4318/v1/traces".into()));
    assert_eq!(
        of("https://cloud.langfuse.com/api/public/otel/"),
        (http, "https://cloud.langfuse.com/api/public/otel/v1/traces".into())
    );
    let whole = sound(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel:4318/own"), (AT, "http://b:4317")]);
    assert_eq!((whole.protocol, whole.endpoint.as_str()), (http, "http://otel:4318/own"));
    let named = sound(&[(AT, "http://otel:9999"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]);
    assert_eq!((named.protocol, named.endpoint.as_str()), (http, "http://otel:9999/v1/traces"));
    assert_eq!(sound(&[(AT, "otel:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "false")]).endpoint, "https://otel:4317");
    let (json, notes) = read(None, &[(AT, "http://otel:4318"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")]);
    assert!(json.unwrap().protocol == http && notes[0].contains("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"));
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let with = |headers: &'static str| read(None, &[OTLP, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]);
    let (settings, notes) = with("Authorization=Basic%20dTpzZWNyZXQ=, x-other = 1,,");
    let settings = settings.unwrap();
    let wanted = [("authorization", "Basic dTpzZWNyZXQ="), ("x-other", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!((&settings.headers.0[..], notes), (&wanted[..], vec![]));
    assert!(!format!("{settings:?}").contains("dTpzZ"));
    let (_, notes) = with("a=b,the-secret");
    assert!(notes[0].contains("entry 2") && !notes[0].contains("secret"), "{notes:?}");
}

#[test]
fn samplers_are_those_of_the_specification_and_the_go_pickers_share() {
    let of = |sampler: &'static str, argument: &'static str| {
        let (settings, notes) = read(None, &[OTLP, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        (settings.unwrap().sampling, notes.len())
    };
    let sampling = |parent_decides, by| Sampling { parent_decides, by };
    assert_eq!(of("", ""), (sampling(true, SampleBy::Ratio(0.1)), 0));
    assert_eq!(of("always_on", ""), (sampling(false, SampleBy::All), 0));
    assert_eq!(of("parentbased_always_off", ""), (sampling(true, SampleBy::None), 0));
    assert_eq!(of("parentbased_traceidratio", "0.5"), (sampling(true, SampleBy::Ratio(0.5)), 0));
    assert_eq!(of("traceidratio", ""), (sampling(false, SampleBy::Ratio(1.0)), 0));
    assert_eq!(of("jaeger_remote", ""), (sampling(true, SampleBy::Ratio(0.1)), 1));
    assert_eq!(of("traceidratio", "7"), (sampling(false, SampleBy::Ratio(1.0)), 1));
}

#[test]
fn numbers_outside_of_their_bounds_are_told() {
    let (settings, notes) = read(
        None,
        &[
            OTLP,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
        ],
    );
    let settings = settings.unwrap();
    assert_eq!((settings.queue, settings.batch, settings.delay.as_secs()), (2048, 2048, 5));
    assert_eq!((settings.timeout.as_millis(), notes.len()), (250, 2));
}

#[test]
fn the_process_is_named_by_its_own_variable_first() {
    let of = |variables: &[(&str, &str)]| sound(&[&[OTLP], variables].concat()).resource;
    let named = |name: &str| vec![("service.name".to_owned(), name.to_owned())];
    assert_eq!(of(&[]), named("picker"));
    assert_eq!(of(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=b")]), named("b"));
    assert_eq!(of(&[("OTEL_SERVICE_NAME", "a"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b")]), named("a"));
    assert_eq!(of(&[("OTEL_RESOURCE_ATTRIBUTES", "zone=a%20b")])[1], ("zone".to_owned(), "a b".to_owned()));
    assert!(!sound(&[OTLP, ("OTEL_PROPAGATORS", "baggage")]).propagates);
    assert!(read(None, &[OTLP, ("OTEL_PROPAGATORS", "tracecontext,b3")]).1[0].contains("b3"));
}
