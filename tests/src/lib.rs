//! Helpers for tests that use the built binary from outside, as a user does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The built binary, brought up to date once.
pub fn weir() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let build = Command::new(env!("CARGO")).args(["build", "--locked", "-p", "weir"]).current_dir(repository()).status();
        assert!(build.expect("cargo runs").success(), "weir does not build");
        // target/<profile>/deps/<this test>
        let this_test = std::env::current_exe().expect("a running test has a path");
        let target = this_test.ancestors().nth(3).expect("tests are built into the target folder");
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
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("weir starts");
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
