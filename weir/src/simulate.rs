//! `weir simulate-server`: model servers without a GPU.

use anyhow::{Context, bail};
use weir_serving::Shutdown;
use weir_simulator::{Engine, Fleet, ServerConfig, ServerProfile};

use crate::args::{Profile, SimulateArguments};

/// Runs the servers until the process is told to stop.
pub(crate) async fn run(arguments: SimulateArguments) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let Ok(engine) = arguments.engine.parse::<Engine>() else {
        bail!("unknown engine `{}`: one of vllm, sglang, trtllm", arguments.engine);
    };
    let profile = match arguments.profile {
        Profile::Small => ServerProfile::small_demo(),
        Profile::Llama8b => ServerProfile::llama_8b_h100(),
        Profile::Llama70b => ServerProfile::llama_70b_tp4(),
    };
    let config = ServerConfig {
        name: arguments.name,
        listen: arguments.listen,
        model: arguments.model,
        engine,
        profile,
        seed: arguments.seed,
        start_delay: arguments.start_delay,
        adapters: arguments.lora,
        ..ServerConfig::default()
    };
    let fleet = Fleet::start(config.replicas(arguments.replicas)?).await.context("the servers cannot be started")?;
    for server in fleet.servers() {
        println!("{} http://{}", server.name(), server.addr());
    }
    shutdown.token().cancelled().await;
    fleet.stop(std::time::Duration::from_secs(30)).await;
    Ok(())
}
