//! `weir scaler` in a real control plane, installed as its users install it: idle pools go to zero, held requests wake them, and what
//! it must not do it does not, and says why.

#![allow(clippy::unwrap_used)]

#[path = "epp/chart.rs"]
#[allow(dead_code, reason = "shared with the picker's tests")]
mod chart;
#[path = "scaler/faults.rs"]
mod faults;
#[path = "scaler/park.rs"]
mod park;
#[path = "scaler/picked.rs"]
mod picked;
#[path = "scaler/refusals.rs"]
mod refusals;
#[path = "epp/scene.rs"]
#[allow(dead_code, reason = "shared with the picker's tests")]
mod scene;
#[path = "scaler/zeros.rs"]
mod zeros;

use tokio::time::Instant;

use weir_tests::cluster::{Cluster, skipped};

use self::park::Park;
use self::picked::Picked;

/// The scenarios share a cluster and two scalers. Those that disturb both come last, one after the other.
#[test]
fn to_zero_and_back_in_a_cluster() {
    if skipped("the scaler in a cluster") {
        return;
    }
    let cluster = Cluster::shared();
    let picked = Picked::new("picked");
    let park = Park::new(cluster, "park");
    let watched = Park::new(cluster, "dry-run");
    let ruled = Park::new(cluster, "ruled");
    park::install(cluster, &[picked.namespace(), &park.namespace, &ruled.namespace]);
    let everything = Instant::now();
    std::thread::scope(|scope| {
        type Scenario = fn(&Park);
        let scenarios: [(&str, Scenario, &Park); 9] = [
            ("refusals", refusals::each_is_told_with_its_way_out, &park),
            ("a human's zero", zeros::a_zero_of_somebody_else_stays, &park),
            ("a zero that changes hands", zeros::a_zero_of_ours_can_be_taken_over, &park),
            ("an edited HPA", zeros::without_its_annotation_a_zero_is_handed_back, &park),
            ("a deleted HPA", zeros::without_its_autoscaler_a_zero_is_said_to_be_orphaned, &park),
            ("a paused Deployment", zeros::a_paused_deployment_sleeps_and_wakes, &park),
            ("two targets of one pool", zeros::of_two_targets_the_first_is_woken, &park),
            ("a missing rule", refusals::a_missing_rule_is_named_and_needs_no_restart, &ruled),
            ("a dry run", refusals::a_dry_run_writes_nothing, &watched),
        ];
        let scenarios = scenarios.map(|(name, scenario, park)| {
            scope.spawn(move || {
                cluster.enter();
                let began = Instant::now();
                scenario(park);
                eprintln!("{name}: {:.1?}", began.elapsed());
            })
        });
        picked.sleeps_and_wakes();
        for scenario in scenarios {
            if let Err(panic) = scenario.join() {
                eprintln!("{}", park::relevant_logs(cluster));
                std::panic::resume_unwind(panic);
            }
        }
    });
    eprintln!("scenarios: {:.1?}", everything.elapsed());
    faults::the_leader_is_killed_while_a_request_is_held(&picked);
    faults::the_api_server_is_away_while_a_request_is_held(&picked);
    eprintln!("all: {:.1?}", everything.elapsed());
}
