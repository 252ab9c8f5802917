//! A picker that runs, and Envoy in front of it.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_tests::{Folder, Process, eventually, get, repository, weir};

/// Runs what blocks beside the test's own tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The pool `n/r` with one endpoint.
pub(crate) fn pools_file(folder: &Folder, endpoint: &str) -> PathBuf {
    let pools = format!("apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: [\"{endpoint}\"]\n");
    folder.write("pools.yaml", &pools)
}

/// The whole body of an answer.
pub(crate) async fn text(mut response: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).unwrap()
}

/// The value of the first series on the page that begins so.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find(|line| line.starts_with(series))?.rsplit(' ').next()?.parse().ok()
}

/// `weir epp` under the name `epp`, on free ports of the loopback.
pub(crate) struct Picker {
    process: Process,
    pub(crate) ext_proc: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Picker {
    /// Runs with the words of `line`, and beyond them no more than what takes the cluster's place.
    pub(crate) async fn start(folder: &Folder, line: &str, pools: &Path) -> Self {
        let binary = folder.file("epp");
        let mut command = Command::new(&binary);
        command.args(line.split_whitespace()).arg("--pools").arg(pools).current_dir(folder.file(""));
        command.args(["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]);
        blocking(move || {
            symlink(weir(), &binary).unwrap();
            let process = Process::start(command);
            let line = process.line("where it listens", |line| line.contains("picking endpoints"));
            let (ext_proc, metrics) = (address(&line, "ext_proc"), address(&line, "metrics"));
            Self { process, ext_proc, metrics }
        })
        .await
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        let url = format!("http://{}/readyz", self.metrics);
        blocking(move || {
            eventually("ready", || match get(&url)? {
                answer if answer == "ok" => Ok(()),
                answer => Err(answer),
            });
        })
        .await;
    }

    /// Waits until its page is as wanted.
    pub(crate) async fn page_until(&self, what: &str, wanted: impl Fn(&str) -> bool + Send + 'static) {
        let (url, what) = (format!("http://{}/metrics", self.metrics), what.to_owned());
        blocking(move || {
            eventually(&what, || {
                let page = get(&url)?;
                if wanted(&page) { Ok(()) } else { Err(page) }
            });
        })
        .await;
    }

    /// Tells it to end.
    pub(crate) async fn ends_well(self) {
        let (well, output) = blocking(move || self.process.terminate()).await;
        assert!(well, "{output}");
    }
}

/// The address that a log line, text or JSON, gives for `name`.
fn address(line: &str, name: &str) -> SocketAddr {
    let after = line.split(&format!("{name}\":\"")).nth(1).or_else(|| line.split(&format!(" {name}=")).nth(1));
    let after = after.unwrap_or_else(|| panic!("no {name} in {line}"));
    after.split([' ', '"']).next().unwrap().parse().unwrap()
}

/// Envoy with one model server behind it, which asks the picker where to go.
pub(crate) struct Gateway {
    pub(crate) client: reqwest::Client,
    /// Of its listeners, by name.
    listeners: Vec<(String, String)>,
    _envoy: Process,
}

impl Gateway {
    pub(crate) async fn start(folder: &Folder, picker: &SocketAddr, server: &str) -> Self {
        weir_serving::install_crypto_provider();
        let port = server.rsplit(':').next().unwrap();
        let config = include_str!("../envoy/gateway.yaml").replace("SERVER_0", port).replace("SERVER_1", port);
        let config = folder.write("envoy.yaml", &config.replace("PICKER", &picker.port().to_string()));
        let admin = folder.file("admin");
        let (envoy, listeners) = blocking(move || {
            let install = Command::new(repository().join("tests/envoy/install")).output().expect("bash runs");
            assert!(install.status.success(), "tests/envoy/install: {}", String::from_utf8_lossy(&install.stderr));
            let mut command = Command::new(String::from_utf8(install.stdout).unwrap().trim());
            command.arg("-c").arg(&config).arg("--admin-address-path").arg(&admin);
            command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
            let envoy = Process::start(command);
            let listeners = eventually("Envoy listens", || {
                let admin = std::fs::read_to_string(&admin).map_err(|error| format!("{error}: {}", envoy.output()))?;
                let listeners = get(&format!("http://{admin}/listeners"))?;
                let named = listeners.lines().filter_map(|line| line.split_once("::"));
                let named: Vec<_> = named.map(|(name, address)| (name.to_owned(), address.to_owned())).collect();
                if named.iter().any(|(name, _)| name == "original") { Ok(named) } else { Err(listeners) }
            });
            (envoy, listeners)
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { client, listeners, _envoy: envoy }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of("original", path)
    }

    pub(crate) fn url_of(&self, listener: &str, path: &str) -> String {
        let (_, address) = self.listeners.iter().find(|(name, _)| name == listener).unwrap();
        format!("http://{address}{path}")
    }
}
