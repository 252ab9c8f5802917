//! Helpers for tests that use the built binary from outside, as a user does.

pub mod arrivals;
pub mod cluster;
pub mod envoy;
pub mod installed;
mod limits;
pub mod workload;

pub use limits::allow_many_files;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The built binary, brought up to date once.
pub fn weir() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/<profile>/<this program>: the binary is built with it.
        let program = std::env::current_exe().expect("a running program has a path");
        if let Some(folder) = program.parent().filter(|folder| !folder.ends_with("deps")) {
            return folder.join("weir");
        }
        let build = Command::new(env!("CARGO")).args(["build", "--locked", "-p", "weir"]).current_dir(repository()).status();
        assert!(build.expect("cargo runs").success(), "weir does not build");
        // target/<profile>/deps/<this test>
        let target = program.ancestors().nth(3).expect("tests are built into the target folder");
        target.join("debug/weir")
    })
}

/// Runs `weir` with `arguments` to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(weir()).args(arguments).stdin(Stdio::null()).output().expect("weir runs")
}

/// The kubectl to use: the machine's own, or the one that `tests/kubectl/install` built.
pub fn kubectl() -> PathBuf {
    let built = repository().join("target/tools/kubectl");
    if built.is_file() { built } else { PathBuf::from("kubectl") }
}

/// The program `page-server`, built with the tests.
pub fn page_server() -> PathBuf {
    weir().with_file_name("page-server")
}

/// The helm to use: the machine's own, or the one that `tests/helm/install` built.
pub fn helm() -> PathBuf {
    let built = repository().join("target/tools/helm");
    if built.is_file() { built } else { PathBuf::from("helm") }
}

/// A file of a published Go module, by way of the Go module proxy and its checksums.
pub fn go_module_file(module: &str, version: &str, path: &str) -> PathBuf {
    let mut command = Command::new("go");
    command.args(["mod", "download", "-json", &format!("{module}@{version}")]).current_dir(std::env::temp_dir());
    let output = command.output().expect("Go is installed: https://go.dev/doc/install");
    let answer = String::from_utf8_lossy(&output.stdout);
    let about: serde_json::Value =
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{module}@{version}: {error}: {answer}"));
    let folder = about["Dir"].as_str().unwrap_or_else(|| panic!("{module}@{version}: {about}"));
    Path::new(folder).join(path)
}

/// The documents of a YAML stream.
pub fn documents(yaml: &str) -> Vec<serde_json::Value> {
    let documents: Vec<Option<serde_json::Value>> = serde_saphyr::from_multiple(yaml).expect("this is YAML");
    documents.into_iter().flatten().collect()
}

/// A folder for one test, removed at its end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder; `name` tells tests of one process apart.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Self(path)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A running process whose lines (standard output and error) are read as they come. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `weir` with `arguments`.
    pub fn weir(arguments: &[&str]) -> Self {
        let mut command = Command::new(weir());
        command.args(arguments);
        Self::start(command)
    }

    /// Starts `command`.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for output in outputs {
            let (sender, seen) = (sender.clone(), seen.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    seen.lock().expect("no test panics while it holds this").push(line.clone());
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen }
    }

    /// The first line from now on that `wanted` accepts.
    pub fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.line_within(what, PATIENCE, wanted)
    }

    /// The same, with another patience.
    pub fn line_within(&self, what: &str, patience: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::SystemTime::now() + patience;
        loop {
            let left = deadline.duration_since(std::time::SystemTime::now()).unwrap_or_default();
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("no line with {what} in time; seen:\n{}", self.output()),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without a line with {what}; seen:\n{}", self.output()),
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far.
    pub fn output(&self) -> String {
        self.seen.lock().expect("no test panics while it holds this").join("\n")
    }

    /// Waits for the process to end by itself; whether it ended well.
    pub fn ended_well(mut self) -> bool {
        self.child.wait().expect("a child can be waited for").success()
    }

    /// Sends SIGTERM and waits for the end; whether it ended well.
    pub fn terminate(mut self) -> (bool, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill runs").success());
        let ended_well = self.child.wait().expect("a child can be waited for").success();
        (ended_well, self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The bearer token that [`Serving`] accepts.
pub const TOKEN: &str = "a-token-of-the-test-0123456789";

/// `weir serve` at work on loopback.
#[derive(Debug)]
pub struct Serving {
    /// The process.
    pub weir: Process,
    /// Where the exporter listens.
    pub exporter: String,
    /// Where the adapter listens.
    pub adapter: String,
    /// The authority of the adapter's certificate.
    pub ca_file: PathBuf,
}

impl Serving {
    /// Serves the pools of `pools`, with its own files in `folder`.
    pub fn start(folder: &Folder, pools: &Path) -> Self {
        let tokens = folder.write("tokens", &format!("{TOKEN}\n"));
        let ca_file = folder.file("ca.crt");
        let weir = Process::weir(&[
            "serve",
            "--pools",
            &pools.display().to_string(),
            "--exporter-listen",
            "127.0.0.1:0",
            "--adapter-listen",
            "127.0.0.1:0",
            "--token-file",
            &tokens.display().to_string(),
            "--tls-ca-out",
            &ca_file.display().to_string(),
        ]);
        let (mut exporter, mut adapter) = (None, None);
        while exporter.is_none() || adapter.is_none() {
            let line = weir.line("where it serves", |line| line.contains(" serving "));
            let server = if line.contains("component=\"adapter\"") { &mut adapter } else { &mut exporter };
            *server = Some(address(&line));
        }
        let (exporter, adapter) = (exporter.unwrap_or_default(), adapter.unwrap_or_default());
        Self { weir, exporter, adapter, ca_file }
    }

    /// The exporter's page.
    pub fn page(&self) -> Result<String, String> {
        get(&format!("http://{}/metrics", self.exporter))
    }
}

/// The body at `url`, whatever the status.
pub fn get(url: &str) -> Result<String, String> {
    weir_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async { text(reqwest::get(url).await.map_err(|error| error.to_string())?).await })
}

/// The whole body of an answer.
pub async fn text(mut response: reqwest::Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| format!("{error:?}"))? {
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The address in a log line of weir's.
pub fn address(line: &str) -> String {
    let after = line.split("address=").nth(1).unwrap_or_else(|| panic!("no address in {line}"));
    after.split(' ').next().unwrap_or(after).to_owned()
}

/// Simulated servers on free ports of 127.0.0.1, and their addresses.
pub fn simulators(replicas: usize) -> (Process, Vec<String>) {
    let process = Process::weir(&["simulate-server", "--listen", "127.0.0.1:0", "--replicas", &replicas.to_string()]);
    let address = |index: usize| {
        let line = process.line("an address", |line| line.starts_with(&format!("simulator-{index} http://")));
        line.rsplit("//").next().unwrap_or_default().to_owned()
    };
    let addresses = (0..replicas).map(address).collect();
    (process, addresses)
}

/// Waits until `condition` gives a value.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = std::time::SystemTime::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if std::time::SystemTime::now() > deadline => panic!("{what}: not in time; last: {last}"),
            // The outside world has no event to wait for: look again soon.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
