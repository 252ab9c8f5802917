//! `weir demo`: the whole line on loopback. Simulated model servers, users, the picker that their requests go through, the exporter,
//! the adapter over HTTPS, and an autoscaler that reads the adapter as Kubernetes would and adds or removes servers, down to none.
//!
//! Nothing in it is short-circuited: pages go over sockets, files of pools are read again when they change, exporter and adapter follow
//! the picker's stream, the autoscaler knows only what the metrics API answers, and a request that finds no server waits in the picker
//! until that has brought one. Only time is compressed.

mod autoscaler;
mod checks;
mod deployment;
mod load;
mod view;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_datastore::PoolId;

use crate::args::DemoArguments;
use crate::process::finished;
use crate::{epp, serve};
use autoscaler::Autoscaler;
use checks::Checks;
use deployment::Deployment;
use load::{Shape, Users};
use view::View;

/// The pool's name.
const POOL: &str = "vllm-llama3-8b-instruct";

/// The pool's namespace.
const NAMESPACE: &str = "default";

/// How long the load takes to rise and fall once, where no duration is given.
const CYCLE: Duration = Duration::from_secs(60);

/// A shorter demo could not show servers go to zero and come back.
const SHORTEST: Duration = Duration::from_secs(40);

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Runs the demo.
pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    if arguments.duration.is_some_and(|duration| duration < SHORTEST) {
        bail!(
            "--for must be at least {}: servers take time to start and to be found idle, and load to rise and fall",
            humantime::format_duration(SHORTEST)
        );
    }
    let cycle = arguments.duration.unwrap_or(CYCLE);
    let folder = Folder::new()?;
    let mut deployment = Deployment::start(folder.path(), arguments.seed).await?;

    let stop = CancellationToken::new();
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let line = picker_line(&deployment.picker_file().display().to_string(), loopback(arguments.picker_port));
    let mut picker = epp::start_for_demo(&line, serve::DEMO_POLL, stop.clone()).await?;
    let door = picker.http.context("the picker serves no clients")?;
    deployment.behind(picker.metrics).await?;
    let options = serve::DemoServers {
        pools: deployment.pools_file(),
        exporter: loopback(arguments.exporter_port),
        adapter: loopback(arguments.adapter_port),
    };
    let servers = serve::start_for_demo(options, stop.clone()).await?;
    let ca_file = folder.path().join("ca.crt");
    std::fs::write(&ca_file, &servers.ca_pem).with_context(|| format!("{} cannot be written", ca_file.display()))?;

    let mut autoscaler = Autoscaler::new(servers.adapter, &servers.ca_pem)?;
    let mut checks = Checks::new(servers.exporter, servers.adapter, &servers.ca_pem)?;
    let mut view = View::new(arguments.plain, autoscaler.describe());
    view.introduce(door, &servers, &ca_file, &deployment.pools_file());

    let first_value = autoscaler.wait_for_a_value().await;
    let outcome = match first_value {
        Ok(()) => {
            let users = Users::start(Shape::new(cycle), door, arguments.seed, stop.clone());
            let outcome = steer(&arguments, &servers, &mut deployment, &mut autoscaler, &mut checks, &users, &mut view).await;
            checks.compare_names().await;
            users.stop().await;
            outcome
        }
        Err(error) => Err(error),
    };
    view.finish();
    deployment.stop().await;
    stop.cancel();
    finished(&mut picker.tasks).await;
    servers.finished().await;
    let whole_cycle = outcome?;
    let report = checks.report(whole_cycle);
    println!("{}", report.summary);
    if report.problems.is_empty() {
        return Ok(());
    }
    bail!("the demo did not go as it must:\n  - {}", report.problems.join("\n  - "))
}

/// What a user without a gateway would start the picker with.
fn picker_line(pools: &str, http: SocketAddr) -> Vec<String> {
    let line = format!(
        "--pool-name {POOL} --pool-namespace {NAMESPACE} --bind-address {} --http {http} --http-keep-alive 1s --hold-empty always \
         --grpc-port 0 --grpc-health-port 0 --metrics-port 0 --secure-serving=false",
        http.ip()
    );
    let words = line.split_whitespace().map(str::to_owned);
    ["--pools".to_owned(), pools.to_owned()].into_iter().chain(words).collect()
}

/// Follows the load until the time is over or somebody presses Ctrl-C; says whether the load rose and fell once.
async fn steer(
    arguments: &DemoArguments,
    servers: &serve::RunningServers,
    deployment: &mut Deployment,
    autoscaler: &mut Autoscaler,
    checks: &mut Checks,
    users: &Users,
    view: &mut View,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    let pool = PoolId::new(NAMESPACE, POOL);
    let mut draw = tokio::time::interval(DRAW_EVERY);
    let mut sync = tokio::time::interval(autoscaler::SYNC_PERIOD);
    sync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let until_end = async {
            match arguments.duration {
                Some(duration) => tokio::time::sleep_until(started + duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until_end => break,
            signal = &mut interrupted => {
                signal.context("Ctrl-C cannot be waited for")?;
                break;
            }
            _ = sync.tick() => {
                deployment.settle().await?;
                let turn = autoscaler.turn(started.elapsed(), deployment.replicas()).await;
                checks.saw(&turn);
                deployment.scale_to(turn.desired).await?;
                view.decided(started.elapsed(), &turn);
            }
            _ = draw.tick() => {
                deployment.settle().await?;
                let everything = weir_datastore::Selector::everything();
                if let Some(snapshot) = servers.datastore.snapshot(&pool, &everything, Instant::now()) {
                    checks.looked(&snapshot);
                    view.draw(started.elapsed(), &snapshot, deployment, users);
                }
            }
        }
    }
    checks.users(users.counts());
    Ok(started.elapsed() >= arguments.duration.unwrap_or(CYCLE))
}

/// A folder for the files of this run, removed at its end.
struct Folder(Arc<std::path::Path>);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("weir-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path.into()))
    }

    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few small files in the folder for temporary ones.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
