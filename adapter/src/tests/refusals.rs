//! What is refused or not known: each failure whole, as the autoscaler's events repeat it.

use tokio::time::advance;

use super::*;
use crate::ResourceLabels;

const QUEUE: &str = "inference_pool_average_queue_size";
const TOTAL_QUEUE: &str = "inference_pool_total_queue_size";

fn two_pools() -> Bench {
    let mut bench = Bench::new();
    for (id, address) in [("default/a", "10.0.0.1:80"), ("default/b", "10.0.0.2:80"), ("other/secret", "10.0.0.3:80")] {
        bench.pool(id, &[address]).shows(address, 1, 1, 0.5);
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_elsewhere() {
    let bench = two_pools();
    for path in [
        "/",
        "/openapi",
        "/openapi/v3/apis/metrics.k8s.io/v1beta1",
        "/healthz",
        "/apis/custom.metrics.k8s.io/v1",
        "/apis/external.metrics.k8s.io/v1beta2",
        "/apis/external.metrics.k8s.io/v1beta1/inference_pool_average_queue_size",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/a/b",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/a%2Fb",
    ] {
        let message = format!(
            "the server could not find the requested resource: nothing is served at {path}, the metrics are at \
             /apis/external.metrics.k8s.io/v1beta1/namespaces/{{namespace}}/{{metric}} and \
             /apis/custom.metrics.k8s.io/v1beta2/namespaces/{{namespace}}/{{resource}}/{{name}}/{{metric}}"
        );
        assert_failure(&bench.send("GET", path, &[]).await, 404, "NotFound", &message);
        assert_eq!(bench.send("POST", path, &[]).await.code, StatusCode::NOT_FOUND);
    }
    assert!(!bench.page().contains("weir_external_metric_requests_total{"), "{}", bench.page());
}

#[tokio::test(start_paused = true)]
async fn only_reading_is_possible() {
    let bench = two_pools();
    let metric = format!("{API}/namespaces/default/{QUEUE}?labelSelector=name%3Da");
    let details = format!("\"details\":{{\"group\":\"external.metrics.k8s.io\",\"kind\":\"{QUEUE}.external.metrics.k8s.io\"}},");
    for verb in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        let reply = bench.send(verb, &metric, &[]).await;
        let message = format!("{verb} is not supported on resources of kind \"{QUEUE}.external.metrics.k8s.io\"");
        assert_failure_about(&reply, 405, "MethodNotAllowed", &message, &details);
        assert_eq!(reply.headers["allow"], "GET, HEAD");
    }
    let watch = bench.send("GET", &format!("{metric}&watch=true"), &[]).await;
    let message = format!("watch is not supported on resources of kind \"{QUEUE}.external.metrics.k8s.io\"");
    assert_failure_about(&watch, 405, "MethodNotAllowed", &message, &details);
    assert_eq!(bench.send("GET", &format!("{metric}&watch=false"), &[]).await.code, StatusCode::OK);

    let details = "\"details\":{\"group\":\"external.metrics.k8s.io\",\"kind\":\"APIResourceList\"},";
    let message = "POST is not supported on resources of kind \"APIResourceList\"";
    assert_failure_about(&bench.send("POST", API, &[]).await, 405, "MethodNotAllowed", message, details);
    assert!(bench.page().contains(r#"{metric="inference_pool_average_queue_size",code="405"} 7"#), "{}", bench.page());
}

#[tokio::test(start_paused = true)]
async fn only_forms_that_are_known_are_written() {
    let bench = two_pools();
    let metric = format!("{API}/namespaces/default/{QUEUE}?labelSelector=name%3Da");
    for accept in [
        "application/vnd.kubernetes.protobuf, */*",
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf",
        "application/yaml",
        "text/html,application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,*/*;q=0.1",
    ] {
        assert_eq!(bench.send("GET", &metric, &[("accept", accept)]).await.code, StatusCode::OK, "{accept}");
    }
    for accept in ["text/html", "application/json;as=Table;v=v2;g=meta.k8s.io", "garbage"] {
        let reply = bench.send("GET", &metric, &[("accept", accept)]).await;
        let message =
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        assert_failure(&reply, 406, "NotAcceptable", message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_metric_lists_the_names_near_it() {
    let bench = two_pools();
    let reply = bench.metric("inference_pool_average_queue_sizes").await;
    let message = "the server could not find the metric inference_pool_average_queue_sizes for inference pools, near it are \
                   inference_pool_average_queue_size, inference_pool_max_queue_size, inference_pool_total_queue_size: list all with \
                   kubectl get --raw /apis/external.metrics.k8s.io/v1beta1";
    assert_failure(&reply, 404, "NotFound", message);
    let reply = bench.metric("prometheus.googleapis.com%7Cfoo%7Cgauge?labelSelector=name%3Da").await;
    let message = "the server could not find the metric prometheus.googleapis.com|foo|gauge for inference pools: list all with kubectl \
                   get --raw /apis/external.metrics.k8s.io/v1beta1";
    assert_failure(&reply, 404, "NotFound", message);
    assert!(bench.page().contains(r#"weir_external_metric_requests_total{metric="unknown",code="404"} 2"#), "{}", bench.page());
}

#[tokio::test(start_paused = true)]
async fn a_selector_without_a_pool_names_the_pools_there_are() {
    let mut bench = two_pools();
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=name%3Dc")).await;
    let message = "the server could not find the metric inference_pool_average_queue_size for the selector \"name=c\" in namespace \
                   default: the pools in namespace default are a, b";
    assert_failure(&reply, 404, "NotFound", message);
    // A pool of another namespace is as unknown as one that does not exist.
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=name%3Dsecret")).await;
    assert_failure(&reply, 404, "NotFound", &message.replace("name=c", "name=secret"));
    let reply = bench.send("GET", &format!("{API}/namespaces/empty/{QUEUE}"), &[]).await;
    let message = "the server could not find the metric inference_pool_average_queue_size for a request without selector in namespace \
                   empty: there is no pool in namespace empty";
    assert_failure(&reply, 404, "NotFound", message);
    for number in 10..20 {
        bench.pool(&format!("default/p{number}"), &[]);
    }
    let reply = bench.metric(&format!("{TOTAL_QUEUE}?labelSelector=name%3Dc")).await;
    let message = "the server could not find the metric inference_pool_total_queue_size for the selector \"name=c\" in namespace default: \
                   the pools in namespace default are a, b, p10, p11, p12, p13, p14, p15, p16, p17 and 2 more";
    assert_failure(&reply, 404, "NotFound", message);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_has_no_pool_here() {
    let resource = ResourceLabels { cluster: Some("prod".into()), ..ResourceLabels::default() };
    let mut bench = Bench::with(AdapterConfig { resource, ..AdapterConfig::default() });
    bench.pool("default/a", &[]);
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=resource.labels.cluster%3Dtest")).await;
    let message = "the server could not find the metric inference_pool_average_queue_size for the selector \
                   \"resource.labels.cluster=test\" in namespace default: \"resource.labels.cluster=test\" does not hold here, where it is \
                   \"prod\"";
    assert_failure(&reply, 404, "NotFound", message);
}

#[tokio::test(start_paused = true)]
async fn a_mean_of_several_pools_is_refused_because_the_autoscaler_adds() {
    let bench = two_pools();
    let message = "inference_pool_average_queue_size is a value per endpoint and a request without selector in namespace default matches \
                   2 pools (a, b), which the autoscaler would add up: choose one with the selector name=POOL, or use the total \
                   inference_pool_total_queue_size";
    assert_failure(&bench.metric(QUEUE).await, 400, "BadRequest", message);
    assert_failure(&bench.metric(&format!("{QUEUE}?labelSelector=")).await, 400, "BadRequest", message);
    let reply = bench.metric("inference_pool_saturation?labelSelector=name%21%3Dx%2Creducer%3DREDUCE_NONE").await;
    let message = "inference_pool_saturation is a value per endpoint and the selector \"name!=x,reducer=REDUCE_NONE\" in namespace \
                   default matches 2 pools (a, b), which the autoscaler would add up: choose one with the selector name=POOL, or use a \
                   total such as inference_pool_total_inflight_requests";
    assert_failure(&reply, 400, "BadRequest", message);
}

#[tokio::test(start_paused = true)]
async fn another_namespace_is_forbidden_whether_it_exists_or_not() {
    let bench = two_pools();
    let details = "\"details\":{\"group\":\"external.metrics.k8s.io\",\"kind\":\"inference_pool_average_queue_size\"},";
    for (selector, asked) in [
        ("namespace%3Dother", "pools of namespace \"other\""),
        ("resource.labels.namespace%3Dnowhere,name%3Da", "pools of namespace \"nowhere\""),
        ("metric.labels.namespace%21%3Ddefault", "pools with \"metric.labels.namespace!=default\""),
    ] {
        let reply = bench.metric(&format!("{QUEUE}?labelSelector={selector}")).await;
        let message = format!(
            "inference_pool_average_queue_size.external.metrics.k8s.io is forbidden: the selector asks for {asked}, but the request is \
             for namespace \"default\": ask in the pool's own namespace, or let the adapter allow selectors across namespaces"
        );
        assert_failure_about(&reply, 403, "Forbidden", &message, details);
    }
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_not_allowed_lists_those_that_are() {
    let reply = two_pools().metric(&format!("{QUEUE}?labelSelector=name%3Da%2Cengine%3Dx")).await;
    let message = "Metric label: \"engine\" is not allowed: the allowed ones are name, pool, inference_pool, namespace, metric.labels.name, \
                   metric.labels.pool, metric.labels.inference_pool, metric.labels.namespace, resource.labels.namespace, \
                   resource.labels.namespace_name, resource.labels.cluster, resource.labels.cluster_name, resource.labels.location, \
                   resource.labels.project_id, resource.type, reducer, model, metric.labels.model, and pod.KEY for the label KEY of pods";
    assert_failure(&reply, 400, "BadRequest", message);
}

#[tokio::test(start_paused = true)]
async fn reducers_that_are_not_there_say_which_are() {
    let bench = two_pools();
    let known = "REDUCE_NONE, REDUCE_MEAN, REDUCE_MIN, REDUCE_MAX, REDUCE_SUM, REDUCE_COUNT";
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=reducer%3DREDUCE_PERCENTILE_99")).await;
    let message = format!("Operation: \"REDUCE_PERCENTILE_99\" is not implemented: the reducers implemented are {known}");
    assert_failure(&reply, 501, "BadRequest", &message);
    for (selector, asked) in [
        ("reducer%21%3DREDUCE_SUM", "reducer!=REDUCE_SUM"),
        ("reducer%3DREDUCE_MEDIAN", "reducer=REDUCE_MEDIAN"),
        ("reducer+in+(REDUCE_MAX,REDUCE_MIN)", "reducer in (REDUCE_MAX,REDUCE_MIN)"),
    ] {
        let reply = bench.metric(&format!("{QUEUE}?labelSelector={selector}")).await;
        let message = format!("{asked}: a reducer is chosen once, with =, and is one of {known}");
        assert_failure(&reply, 400, "BadRequest", &message);
    }
}

#[tokio::test(start_paused = true)]
async fn the_grammar_of_selectors_answers_in_the_words_of_kubernetes() {
    let bench = two_pools();
    for (selector, message) in [
        ("a+b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a%3Db%2C", "found '', expected: identifier after ','"),
        ("a%3Db+c", "found 'c', expected: ',' or 'end of string'"),
        ("%3Db", "found '=', expected: !, identifier, or 'end of string'"),
        ("a+in+x", "unable to parse requirement: found 'x' expected: '('"),
    ] {
        assert_failure(&bench.metric(&format!("{QUEUE}?labelSelector={selector}")).await, 400, "BadRequest", message);
    }
    for value in ["vllm%3Afoo", "google%2Fgemma", "-x"] {
        let reply = bench.metric(&format!("{QUEUE}?labelSelector=name%3D{value}")).await;
        assert_eq!(reply.code, StatusCode::BAD_REQUEST);
        let value = value.replace("%3A", ":").replace("%2F", "/");
        let start = format!(
            "unable to parse requirement: values[0][name]: Invalid value: \\\"{value}\\\": a valid label must be an empty string"
        );
        assert!(reply.body.contains(&start), "{}", reply.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_pool_says_why_and_since_when() {
    let mut bench = Bench::new();
    bench.pool("default/vllm-llama3", &["10.0.0.1:8000", "10.0.0.2:8000"]);
    bench.shows("10.0.0.1:8000", 3, 2, 0.5).shows("10.0.0.2:8000", 3, 2, 0.5);
    advance(Duration::from_secs(3)).await;
    assert_eq!(bench.values(QUEUE, "").await, "vllm-llama3 2");
    bench.fails("10.0.0.1:8000", "10.0.0.1:8000 refused the connection").fails("10.0.0.2:8000", "no route");
    advance(Duration::from_secs(9)).await;
    let message = "inference_pool_average_queue_size of pool default/vllm-llama3 is not known: none of its 2 ready endpoints has fresh \
                   metrics: 10.0.0.1:8000 refused the connection; last known at 2026-01-01T00:00:48Z, 12 s ago";
    assert_failure(&bench.metric(QUEUE).await, 503, "ServiceUnavailable", message);
    let page = bench.page();
    assert!(page.contains(r#"{metric="inference_pool_average_queue_size",code="503"} 1"#), "{page}");
    // Nothing was given out but the one value that was known.
    assert!(page.contains(r#"_freshness_seconds_count{group="external.metrics.k8s.io"} 1"#), "{page}");
    bench.shows("10.0.0.2:8000", 0, 4, 0.5);
    assert_eq!(bench.values(QUEUE, "").await, "vllm-llama3 4");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_known_is_not_known_without_a_time() {
    let mut bench = Bench::new();
    bench.pool("default/a", &["10.0.0.1:80"]);
    let message = |cause: &str| format!("inference_pool_average_queue_size of pool default/a is not known: {cause}");
    let expected = message("none of its 1 ready endpoints has fresh metrics");
    assert_failure(&bench.metric(QUEUE).await, 503, "ServiceUnavailable", &expected);
    bench.shows("10.0.0.1:80", 1, 1, 0.5).unready();
    let expected = message("none of its 1 endpoints is ready");
    assert_failure(&bench.metric(QUEUE).await, 503, "ServiceUnavailable", &expected);
    let reply = bench.metric("inference_pool_held_requests").await;
    let message = "inference_pool_held_requests of pool default/a is not known: no endpoint picker of it is known that tells how many \
                   requests it holds";
    assert_failure(&reply, 503, "ServiceUnavailable", message);
}

#[tokio::test(start_paused = true)]
async fn the_pods_chosen_are_named_where_their_value_is_not_known() {
    let mut bench = Bench::new();
    bench.pool("default/a", &["10.0.0.1:80", "10.0.0.2:80"]).label("10.0.0.1:80", "gpu", "h100").shows("10.0.0.2:80", 1, 1, 0.5);
    assert_eq!(bench.values(QUEUE, "").await, "a 1");
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=pod.gpu%3Dh100")).await;
    let message = "inference_pool_average_queue_size of pool default/a (pods with gpu=h100) is not known: none of its 1 ready endpoints has \
                   fresh metrics";
    assert_failure(&reply, 503, "ServiceUnavailable", message);
}

#[tokio::test(start_paused = true)]
async fn of_several_pools_all_must_be_known() {
    let mut bench = two_pools();
    assert_eq!(bench.values(TOTAL_QUEUE, "").await, "a 1, b 1");
    advance(Duration::from_secs(4)).await;
    bench.shows("10.0.0.1:80", 1, 1, 0.5);
    let message = "inference_pool_total_queue_size of pool default/b is not known: none of its 1 ready endpoints has fresh metrics; last \
                   known at 2026-01-01T00:00:56Z, 4 s ago";
    for selector in
        ["", "?labelSelector=name+in+(a,b)", "?labelSelector=reducer%3DREDUCE_SUM", "?labelSelector=reducer%3DREDUCE_COUNT"]
    {
        assert_failure(&bench.metric(&format!("{TOTAL_QUEUE}{selector}")).await, 503, "ServiceUnavailable", message);
    }
    assert_eq!(bench.values(TOTAL_QUEUE, "name=a").await, "a 1");
    assert_eq!(bench.values("inference_pool_ready_pods", "").await, "a 1, b 0");
}
