//! What body-based routing is to do, from its command line and its environment. Pure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_bbr::plugin::Plugin;
use weir_k8s::ClientOptions;

use crate::go_flags::Given;
use crate::metrics_server::Access;

/// All that it is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) plugins: Vec<Plugin>,
    pub(super) rules: Option<PathBuf>,
    /// None: there is none.
    pub(super) cluster: Option<ClientOptions>,
    /// None: all of them.
    pub(super) namespace: Option<String>,
    pub(super) bind: Option<IpAddr>,
    pub(super) ext_proc_port: u16,
    pub(super) health_port: u16,
    pub(super) metrics_port: u16,
    pub(super) streaming: bool,
    pub(super) secure: bool,
    pub(super) cert_path: Option<PathBuf>,
    pub(super) metrics_access: Access,
    pub(super) drain: Option<Duration>,
    /// What is passed over, each with what happens instead.
    pub(super) notes: Vec<String>,
}

impl Options {
    /// What `given` and the variables of `env` ask for.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn of(given: &Given, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut wrong = Vec::new();
        let mut plugins = Vec::new();
        for text in given.texts("plugin") {
            match Plugin::parse(text) {
                Ok(plugin) => plugins.push(plugin),
                Err(problem) => wrong.push(format!("--plugin {}: {problem}", text.escape_debug())),
            }
        }
        for (position, plugin) in plugins.iter().enumerate() {
            if plugins[..position].iter().any(|before| before.header() == plugin.header()) {
                wrong.push(format!("--plugin: two of them set the header {}: one would undo the other", plugin.header()));
            }
        }
        if plugins.is_empty() && wrong.is_empty() {
            plugins = Plugin::defaults();
        }
        let port = |flag: &str, default: u16| given.parsed(flag).unwrap_or(default);
        let ports =
            [("grpc-port", 9004), ("grpc-health-port", 9005), ("metrics-port", 9090)].map(|(flag, at)| (flag, port(flag, at)));
        for (position, (flag, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..position].iter().find(|(_, other)| other == port && *port != 0) {
                wrong.push(format!("--{flag}: {port} is the port of --{other} as well: give each its own"));
            }
        }
        let bind = given.text("bind-address").map(|text| (text, text.parse().ok()));
        if let Some((text, None)) = bind {
            wrong.push(format!("--bind-address: `{}` is no IP address", text.escape_debug()));
        }
        let metrics_access = Access::of(given);
        wrong.extend(metrics_access.problem());
        let (kubeconfig, context) = (given.text("kubeconfig").map(PathBuf::from), given.text("context").map(str::to_owned));
        let in_a_pod = env("KUBERNETES_SERVICE_HOST").is_some();
        let cluster = (in_a_pod || kubeconfig.is_some() || context.is_some()).then_some(ClientOptions { kubeconfig, context });
        let mut notes = given.notes.clone();
        if cluster.is_none() {
            notes.push(
                "no cluster: mappings are those of --rules alone; outside of a pod, give --kubeconfig for its ConfigMaps"
                    .to_owned(),
            );
        }
        let options = Self {
            plugins,
            rules: given.text("rules").map(PathBuf::from),
            cluster,
            namespace: given.text("namespace").map(str::to_owned).or_else(|| env("NAMESPACE")),
            bind: bind.and_then(|(_, address)| address),
            ext_proc_port: ports[0].1,
            health_port: ports[1].1,
            metrics_port: ports[2].1,
            streaming: given.switch("streaming").unwrap_or(false),
            secure: given.switch("secure-serving").unwrap_or(true),
            cert_path: given.text("cert-path").map(PathBuf::from),
            metrics_access,
            drain: given.duration("drain-timeout"),
            notes,
        };
        if wrong.is_empty() { Ok(options) } else { Err(wrong) }
    }
}
