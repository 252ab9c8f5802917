//! Envoy as a test's gateway, with the configuration `tests/envoy/gateway.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::{Folder, Process, eventually, get, repository};

/// How Envoy is to know which of several pickers takes requests: it asks them, and one that broke off a stream is left out at once.
const OF_SEVERAL: &str = "health_checks: [{ timeout: 1s, interval: 1s, no_traffic_interval: 1s, unhealthy_threshold: 1, \
                          healthy_threshold: 1, grpc_health_check: {} }]\n    \
                          outlier_detection: { consecutive_5xx: 1, interval: 1s, base_ejection_time: 1s, max_ejection_percent: 50 }";

/// A running Envoy with the listeners `known`, `original`, `buffered`, `asked`, `defaults`, `impatient` and `round-robin`. It ends when dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    listeners: Vec<(String, String)>,
    _folder: Folder,
}

impl Envoy {
    /// Starts it in the network of the calling thread; `name` tells those of one process apart. It asks the `pickers`, of several
    /// those that are well; its listener `known` sends to the `servers` alone.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn start(name: &str, pickers: &[SocketAddr], servers: &[SocketAddr]) -> Self {
        let config = include_str!("../envoy/gateway.yaml")
            .replace("SERVERS", &endpoints(servers))
            .replace("PICKERS", &endpoints(pickers))
            .replace("# OF SEVERAL", if pickers.len() > 1 { OF_SEVERAL } else { "" });
        Self::with_config(name, &config, 7)
    }

    /// Starts it with this configuration, which has so many listeners, each on a free port.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn with_config(name: &str, config: &str, listeners: usize) -> Self {
        let folder = Folder::new(&format!("envoy-{name}"));
        let config = folder.write("envoy.yaml", config);
        let admin = folder.file("admin");
        let mut command = Command::new(program());
        command.arg("-c").arg(&config).arg("--admin-address-path").arg(&admin);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        let process = Process::start(command);
        let listeners = eventually("Envoy listens", || {
            let admin = std::fs::read_to_string(&admin).map_err(|error| format!("{error}: {}", process.output()))?;
            let text = get(&format!("http://{admin}/listeners"))?;
            let found: Vec<_> =
                text.lines().filter_map(|line| line.split_once("::")).map(|(name, at)| (name.into(), at.into())).collect();
            if found.len() == listeners { Ok(found) } else { Err(format!("{text}: {}", process.output())) }
        });
        Self { process, listeners, _folder: folder }
    }

    /// Where this listener listens.
    ///
    /// # Panics
    ///
    /// When there is no such listener.
    pub fn address(&self, listener: &str) -> &str {
        let found = self.listeners.iter().find(|(name, _)| name == listener);
        found.map_or_else(|| panic!("no listener {listener}"), |(_, address)| address)
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All it wrote so far.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// Endpoints of a cluster, as `lb_endpoints` lists them.
pub fn endpoints(addresses: &[SocketAddr]) -> String {
    let endpoint = |address: &SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("{{ endpoint: {{ address: {{ socket_address: {{ address: \"{ip}\", port_value: {port} }} }} }} }}")
    };
    addresses.iter().map(endpoint).collect::<Vec<_>>().join(", ")
}

fn program() -> &'static PathBuf {
    static ENVOY: OnceLock<PathBuf> = OnceLock::new();
    ENVOY.get_or_init(|| {
        let install = Command::new(repository().join("tests/envoy/install")).output().expect("bash runs");
        assert!(install.status.success(), "tests/envoy/install: {}", String::from_utf8_lossy(&install.stderr));
        String::from_utf8_lossy(&install.stdout).trim().into()
    })
}
