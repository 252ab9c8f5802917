//! What weir's replicas use: without a pool, and with many.

use std::time::Duration;

use serde_json::Value;
use weir_tests::cluster::Cluster;
use weir_tests::installed;

use crate::api::{Api, Connections};
use crate::process::{cpu_time, resident};
use crate::servers;
use crate::{Failure, TOTAL};

/// After the start of a replica and before a measurement.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long processor time is measured.
const WINDOW: Duration = Duration::from_secs(30);

/// Headings of [`of_the_replicas`].
pub(crate) const HEADINGS: &str = "| replica of | pools | RSS | share of a core |\n|---|---:|---:|---:|";

/// Memory and processor time of every replica.
pub(crate) async fn of_the_replicas(cluster: &Cluster, pools: usize) -> Result<(), Failure> {
    tokio::time::sleep(WARM_UP).await;
    let pids = pids(cluster)?;
    let times = |pids: &[u32]| pids.iter().map(|pid| cpu_time(*pid).ok_or("a replica has ended")).collect::<Result<Vec<_>, _>>();
    let (began, before) = (tokio::time::Instant::now(), times(&pids)?);
    tokio::time::sleep(WINDOW).await;
    let passed = began.elapsed();
    for ((pid, before), after) in pids.iter().zip(before).zip(times(&pids)?) {
        let share = 100.0 * (after - before).as_secs_f64() / passed.as_secs_f64();
        let mebibytes = resident(*pid).ok_or("a replica has ended")? as f64 / f64::from(1 << 20);
        println!("| {} | {pools} | {mebibytes:.0} MiB | {share:.2} % |", pids.len());
    }
    Ok(())
}

/// Processes of the ready replicas.
fn pids(cluster: &Cluster) -> Result<Vec<u32>, Failure> {
    let mut pids = Vec::new();
    for (pod, _) in installed::pods(cluster)? {
        let answer = cluster.try_command(&format!("pod-pid {}/{pod}", installed::NAMESPACE))?;
        let pid = answer.pointer("/pids/weir").and_then(Value::as_u64).ok_or("a replica has no process")?;
        pids.push(u32::try_from(pid)?);
    }
    Ok(pids)
}

/// Makes many pools of one pod each, starts one replica anew, and says when it had a value of all, and what it uses.
pub(crate) async fn with_many_pools(cluster: &Cluster, count: usize) -> Result<(), Failure> {
    let namespace = cluster.namespace("many");
    cluster.kubectl_reading(&["create", "-n", &namespace, "-f", "-"], &servers::pools("pool", count))?;
    cluster.wait_for_pods(&namespace, "part=server", count);
    scale(cluster, 0)?;
    cluster.wait_for("no replica", || {
        let pods = cluster.kubectl(&["get", "pods", "-n", installed::NAMESPACE, "-o", "name"])?;
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    scale(cluster, 1)?;
    let api = Api::new(cluster, Connections::Kept)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        // Without a selector: all pools of the namespace.
        let answer = api.list(&format!("{namespace}/{TOTAL}")).await;
        match answer.map(|list| list["items"].as_array().map_or(0, Vec::len)) {
            Ok(all) if all == count => break,
            other if tokio::time::Instant::now() > deadline => return Err(format!("of {count} pools: {other:?}").into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let pid = *pids(cluster)?.first().ok_or("no replica is ready")?;
    let age = age(pid)?;
    of_the_replicas(cluster, count).await?;
    println!("\nA value of each of {count} pools {:.1} s after the start of the process.\n", age.as_secs_f64());
    scale(cluster, 2)?;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false"])?;
    installed::wait_until_it_answers(cluster);
    Ok(())
}

fn scale(cluster: &Cluster, replicas: usize) -> Result<(), Failure> {
    cluster.kubectl(&["scale", "deployment/weir", "-n", installed::NAMESPACE, &format!("--replicas={replicas}")])?;
    Ok(())
}

/// How long a process has been running.
fn age(pid: u32) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // In ticks of 10 ms since the machine's start: the twentieth field after the name, which may hold anything.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).ok_or("no start in stat")?;
    let started = Duration::from_millis(10 * started.parse::<u64>()?);
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next().ok_or("no uptime")?.parse()?;
    Ok(Duration::from_secs_f64(uptime).saturating_sub(started))
}
