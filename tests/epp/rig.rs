//! A picker that runs, and Envoy in front of it.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_tests::envoy::Envoy;
use weir_tests::{Folder, Process, eventually, get, weir};

/// Runs what blocks beside the test's own tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The pool `n/r` with one endpoint.
pub(crate) fn pools_file(folder: &Folder, endpoint: &str) -> PathBuf {
    let pools = format!("apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: [\"{endpoint}\"]\n");
    folder.write("pools.yaml", &pools)
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
    /// Where clients are served, with `--http`.
    pub(crate) http: Option<SocketAddr>,
}

impl Picker {
    /// Runs with the words of `line`, and beyond them no more than what takes the cluster's place.
    pub(crate) async fn start(folder: &Folder, line: &str, pools: &Path) -> Self {
        Self::start_with(folder, line, pools, &[]).await
    }

    /// The same, with these variables.
    pub(crate) async fn start_with(folder: &Folder, line: &str, pools: &Path, variables: &[(&str, String)]) -> Self {
        let binary = folder.file("epp");
        let mut command = Command::new(&binary);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.args(line.split_whitespace()).arg("--pools").arg(pools).current_dir(folder.file(""));
        command.args(["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]);
        blocking(move || {
            symlink(weir(), &binary).unwrap();
            let process = Process::start(command);
            let line = process.line("where it listens", |line| line.contains("picking endpoints"));
            let known = |name| address(&line, name).unwrap_or_else(|| panic!("no {name} in {line}"));
            let (ext_proc, metrics, http) = (known("ext_proc"), known("metrics"), address(&line, "http"));
            Self { process, ext_proc, metrics, http }
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

    /// Its page.
    pub(crate) async fn page(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics);
        blocking(move || get(&url).unwrap()).await
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

    /// What it wrote so far.
    #[allow(dead_code, reason = "only tests/frontend.rs asks")]
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Tells it to end.
    pub(crate) async fn ends_well(self) {
        let (well, output) = blocking(move || self.process.terminate()).await;
        assert!(well, "{output}");
    }
}

/// The address that a log line, text or JSON, gives for `name`.
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let after = line.split(&format!("{name}\":\"")).nth(1).or_else(|| line.split(&format!(" {name}=")).nth(1))?;
    after.split([' ', '"']).next()?.parse().ok()
}

/// Envoy with one model server behind it, which asks the picker where to go.
pub(crate) struct Gateway {
    pub(crate) client: reqwest::Client,
    envoy: Envoy,
}

impl Gateway {
    pub(crate) async fn start(name: &'static str, picker: SocketAddr, server: &str) -> Self {
        weir_serving::install_crypto_provider();
        let server = server.parse().unwrap();
        let envoy = blocking(move || Envoy::start(name, &[picker], &[server])).await;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { client, envoy }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of("original", path)
    }

    pub(crate) fn url_of(&self, listener: &str, path: &str) -> String {
        format!("http://{}{path}", self.envoy.address(listener))
    }
}
