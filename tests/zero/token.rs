//! Pickers that ask who reads their pages.

use weir_tests::cluster::skipped;
use weir_tests::workload::inference_pool;
use weir_tests::{installed, repository};

use super::alone;
use super::chart::{POOL, chart, picker_service, role};

#[test]
fn a_picker_that_asks_who_reads_it_is_read_with_a_token_for_pages() {
    if skipped("a picker that asks for a token") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = cluster.namespace("token");
    cluster.apply(&namespace, &role(true));
    cluster.apply(&namespace, &inference_pool(POOL, "nobody").to_string());
    cluster.apply(&namespace, &picker_service());
    cluster.apply(&namespace, &chart(&namespace, 1, &[]));
    cluster.wait_for_pods(&namespace, "app=epp", 1);
    let held = || installed::external(cluster, &namespace, "inference_pool_held_requests", POOL);
    cluster.wait_for("word of the missing token", || {
        let logs = installed::log_of_all(cluster);
        if logs.contains("the server wants credentials") { Ok(()) } else { Err(logs) }
    });
    let unknown = held().unwrap_err();
    assert!(unknown.contains("picker"), "{unknown}");

    let manifests = repository().join("manifests/picker-token").display().to_string();
    cluster.kubectl(&["apply", "-k", &manifests]).unwrap();
    cluster.kubectl(&["rollout", "restart", "deployment/weir", "-n", installed::NAMESPACE]).unwrap();
    installed::wait_until_it_answers(cluster);
    cluster.wait_for("what the picker holds", || match held()? {
        0 => Ok(()),
        other => Err(other.to_string()),
    });
}
