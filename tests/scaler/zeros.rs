//! Whose zero it is, and who ends it.

use serde_json::json;

use super::park::{Park, asks, autoscaler};

const OURS: [&str; 1] = ["weir-scaler Apply scale"];

/// The scaler has looked at everything at least once since: another target went to zero and back.
fn the_scaler_has_looked(park: &Park, name: &str) {
    park.asking_pool(name);
    park.until_replicas(name, 0);
}

pub(crate) fn a_zero_of_somebody_else_stays(park: &Park) {
    park.pool("human");
    park.kubectl(&["scale", "deployment/human", "--replicas=0"]);
    park.cluster.apply(&park.namespace, &autoscaler("human", "human", asks(), 1).to_string());
    park.told("human", "ZeroLeftAlone: scaled to zero, and not by weir: it is left at zero until somebody scales it");
    park.holds("human", 3);
    the_scaler_has_looked(park, "human-witness");
    assert_eq!(park.replicas("human"), Ok(0));
    // As soon as somebody ends it, all is as usual.
    park.holds("human", 0);
    park.kubectl(&["scale", "deployment/human", "--replicas=1"]);
    park.until_replicas("human", 0);
    assert_eq!(park.managers("human"), OURS);
}

pub(crate) fn a_zero_of_ours_can_be_taken_over(park: &Park) {
    park.asking_pool("taken");
    park.until_replicas("taken", 0);
    assert_eq!(park.managers("taken"), OURS);
    // Neither a new image nor another apply without a number changes whose zero it is.
    park.kubectl(&["set", "image", "deployment/taken", "server=weir:next"]);
    assert_eq!(park.managers("taken"), OURS);
    park.kubectl(&["scale", "deployment/taken", "--replicas=0"]);
    assert_eq!(park.managers("taken"), OURS, "a number that is there already is nobody's write");
    // A number that is applied by the server's rules is whoever's applies it.
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "taken"}, "spec": {"replicas": 0}});
    let owner = ["apply", "--server-side", "--field-manager=gitops", "-n", &park.namespace, "-f", "-"];
    park.cluster.kubectl_reading(&owner, &applied.to_string()).unwrap();
    assert_eq!(park.managers("taken"), ["gitops Apply ", OURS[0]]);
    park.told("taken", "ZeroLeftAlone: at the zero of gitops, not at weir's");
    park.holds("taken", 2);
    the_scaler_has_looked(park, "taken-witness");
    assert_eq!(park.replicas("taken"), Ok(0));
    // Once somebody ends it, the next zero is weir's again, and is woken.
    park.holds("taken", 0);
    park.kubectl(&["scale", "deployment/taken", "--replicas=1"]);
    park.until_replicas("taken", 0);
    assert_eq!(park.managers("taken"), OURS);
    park.holds("taken", 2);
    park.until_replicas("taken", 1);
    park.holds("taken", 0);
}

pub(crate) fn without_its_annotation_a_zero_is_handed_back(park: &Park) {
    park.pool("edited");
    park.cluster.apply(&park.namespace, &autoscaler("edited", "edited", asks(), 2).to_string());
    park.until_replicas("edited", 0);
    park.kubectl(&["annotate", "hpa/edited", "weir.internal/idle-after-"]);
    park.until_replicas("edited", 2);
    park.told(
        "edited",
        "HandedBack: scaled Deployment.apps/edited from 0 to 2: at weir's zero, and the HPA no longer has the annotation",
    );
    // A shorter and a broken one, mid-flight.
    park.kubectl(&["annotate", "hpa/edited", "weir.internal/idle-after=soon"]);
    park.told("edited", "BrokenAnnotation: metadata.annotations[weir.internal/idle-after]: `soon` is no duration");
    park.kubectl(&["annotate", "--overwrite", "hpa/edited", "weir.internal/idle-after=10s"]);
    park.until_replicas("edited", 0);
    // Other bounds: the HPA goes to zero and back by itself from now on.
    park.kubectl(&["patch", "hpa/edited", "--type=merge", "-p", r#"{"spec":{"minReplicas":0}}"#]);
    park.until_replicas("edited", 1);
    park.told("edited", "from 0 to 1: at weir's zero, and minReplicas is 0 now");
}

pub(crate) fn without_its_autoscaler_a_zero_is_said_to_be_orphaned(park: &Park) {
    park.asking_pool("orphan");
    park.until_replicas("orphan", 0);
    park.kubectl(&["delete", "hpa/orphan"]);
    let command = format!("kubectl scale -n {} Deployment.apps/orphan --replicas=1", park.namespace);
    park.told("orphan", "\"Deployment\" OrphanedZero: HorizontalPodAutoscaler orphan has gone");
    park.told("orphan", &command);
    assert_eq!(park.replicas("orphan"), Ok(0));
    // The command does what it says.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    park.cluster.kubectl(&words).unwrap();
    assert_eq!(park.replicas("orphan"), Ok(1));
}

pub(crate) fn a_paused_deployment_sleeps_and_wakes(park: &Park) {
    park.asking_pool("paused");
    park.kubectl(&["rollout", "pause", "deployment/paused"]);
    park.until_replicas("paused", 0);
    park.cluster.wait_for("its pod to go", || {
        let pods = park.cluster.get(&park.namespace, "pods -l app=paused")?["items"].as_array().map_or(0, Vec::len);
        if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
    });
    park.holds("paused", 1);
    park.until_replicas("paused", 1);
    park.cluster.wait_for_pods(&park.namespace, "app=paused", 1);
    park.holds("paused", 0);
    // The number that weir woke it to is the HPA's as soon as that writes another one, and no claim to the zero that a human makes.
    assert_eq!(park.managers("paused"), OURS);
    park.kubectl(&["patch", "hpa/paused", "--type=merge", "-p", r#"{"spec":{"minReplicas":2}}"#]);
    park.until_replicas("paused", 2);
    assert_eq!(park.managers("paused"), ["kube-controller-manager Update scale"]);
    park.kubectl(&["scale", "deployment/paused", "--replicas=0"]);
    assert_eq!(park.managers("paused"), Vec::<String>::new());
    park.told("paused", "ZeroLeftAlone: scaled to zero, and not by weir");
}

pub(crate) fn of_two_targets_the_first_is_woken(park: &Park) {
    // Two Deployments whose pods one pool selects.
    for name in ["two-a", "two-b"] {
        let servers = weir_tests::workload::model_servers(name, 1, &[]);
        let mut list: serde_json::Value = serde_json::from_str(&servers).unwrap();
        let mut deployment = list["items"][0].take();
        deployment["spec"]["template"]["metadata"]["labels"]["pool"] = json!("two");
        park.cluster.apply(&park.namespace, &deployment.to_string());
        park.cluster.apply(&park.namespace, &autoscaler(name, name, asks(), 1).to_string());
    }
    let mut pool = weir_tests::workload::inference_pool("two", "x");
    pool["spec"]["selector"]["matchLabels"] = json!({"pool": "two"});
    pool["spec"]["endpointPickerRef"]["name"] = json!("epp");
    park.cluster.apply(&park.namespace, &pool.to_string());
    park.until_replicas("two-a", 0);
    park.until_replicas("two-b", 0);
    park.holds("two", 7);
    park.until_replicas("two-a", 1);
    park.told("two-b", "OthersServe: requests are held for pool");
    assert_eq!(park.replicas("two-b"), Ok(0));
    park.holds("two", 0);
}
