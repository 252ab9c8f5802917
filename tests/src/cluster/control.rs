//! Starting and stopping a cluster.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::Namespace;
use crate::{kubectl, page_server, repository, weir};

/// How long a cluster may take to come up, and a component to start again.
const START_PATIENCE: Duration = Duration::from_secs(240);

/// How long a cluster may take to go.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster has.
#[derive(Clone, Debug)]
pub struct Options {
    /// Programs by image name: a container whose image has this name as last component runs the program. [`Default`]: `weir`, the built
    /// binary, `page-server`, `sh` and `kubectl`.
    pub images: Vec<(String, PathBuf)>,
    /// Whether the CRDs of the Inference Extension are there.
    pub crds: bool,
    /// How many nodes there are.
    pub nodes: usize,
    /// Whether kube-scheduler places pods; else each goes to the next node.
    pub scheduler: bool,
    /// Whether pods also run on nodes that others create.
    pub adopt_nodes: bool,
    /// How often the HPA controller works.
    pub hpa_sync: Duration,
    /// Further arguments of kube-apiserver.
    pub apiserver_arguments: Vec<String>,
    /// Further arguments of kube-controller-manager.
    pub controller_manager_arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: vec![
                ("weir".into(), weir().into()),
                ("sh".into(), "/bin/sh".into()),
                ("kubectl".into(), kubectl()),
                ("page-server".into(), page_server()),
            ],
            crds: true,
            nodes: 2,
            scheduler: false,
            adopt_nodes: false,
            hpa_sync: Duration::from_secs(2),
            // There is no name service: a node is found by its address, where a test serves the logs of its pods.
            apiserver_arguments: vec!["--kubelet-preferred-address-types=InternalIP".into()],
            controller_manager_arguments: Vec::new(),
        }
    }
}

/// A running cluster; gone with all its processes and files when dropped, or when this process ends, however it does.
#[derive(Debug)]
pub struct Cluster {
    namespace: Namespace,
    about: Value,
    state: PathBuf,
    conversation: Mutex<Conversation>,
    process: Mutex<Child>,
    errors: Arc<Mutex<String>>,
}

/// Commands go in, answers come out, a line each.
#[derive(Debug)]
struct Conversation {
    // None once the cluster is told to go.
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Cluster {
    /// Starts a cluster, and takes the calling thread into its network.
    ///
    /// # Panics
    ///
    /// When it is not built, or does not come up.
    pub fn start(options: &Options) -> Self {
        let programs = programs();
        let state = std::env::temp_dir().join(format!("weir-cluster-{}-{}", std::process::id(), next_number()));
        let namespace = Namespace::enter_new();
        let mut command = Command::new(programs.join("cluster"));
        command.arg("cluster").arg("--state").arg(&state).arg(format!("--nodes={}", options.nodes));
        command.arg(format!("--hpa-sync={}ms", options.hpa_sync.as_millis()));
        command.arg(format!("--scheduler={}", options.scheduler)).arg(format!("--adopt-nodes={}", options.adopt_nodes));
        if options.crds {
            command.arg("--crds").arg(programs.join("crds"));
        }
        for (name, program) in &options.images {
            command.arg("--image").arg(format!("{name}={}", program.display()));
        }
        command.args(options.apiserver_arguments.iter().map(|argument| format!("--apiserver-argument={argument}")));
        command
            .args(options.controller_manager_arguments.iter().map(|argument| format!("--controller-manager-argument={argument}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, answers) = channel();
        let output = process.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let (mut output, text) = (process.stderr.take().expect("piped"), errors.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                text.lock().expect("no test panics while it holds this").push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let input = process.stdin.take();
        let conversation = Mutex::new(Conversation { input, answers });
        let mut cluster = Self { namespace, about: Value::Null, state, conversation, process: Mutex::new(process), errors };
        cluster.about = cluster.answer("the start");
        cluster
    }

    /// The cluster that all tests of this process share. The calling thread is in its network from now on.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        let cluster = SHARED.get_or_init(|| Self::start(&Options::default()));
        cluster.enter();
        cluster
    }

    /// Takes the calling thread into the cluster's network.
    pub fn enter(&self) {
        self.namespace.enter();
    }

    /// The cluster's network.
    pub fn network(&self) -> &Namespace {
        &self.namespace
    }

    /// What the cluster said about itself: paths of its kubeconfig, certificates and keys, addresses, seconds that the start took.
    pub fn about(&self, field: &str) -> &Value {
        self.about.get(field).unwrap_or_else(|| panic!("the cluster says nothing about {field}: {}", self.about))
    }

    /// The path of a file that the cluster made: `kubeconfig`, `client_ca_certificate`, `client_ca_key`, `front_proxy_certificate`,
    /// `front_proxy_key`, `front_proxy_ca_certificate`, `front_proxy_ca_key`.
    pub fn path(&self, field: &str) -> &Path {
        Path::new(self.about(field).as_str().unwrap_or_else(|| panic!("{field} is no path")))
    }

    /// The folder of its logs and files.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its process, whose end is the end of all others.
    pub fn pid(&self) -> u32 {
        self.process.lock().expect("no test panics while it holds this").id()
    }

    /// Sends a command and gives its answer: `stop`, `start` or `restart` with `etcd`, `kube-apiserver` or `kube-controller-manager`;
    /// `kill-pod`, `pod-pid` or `logs` with `NAMESPACE/NAME`.
    ///
    /// # Panics
    ///
    /// When the answer is an error, or none comes.
    pub fn command(&self, command: &str) -> Value {
        self.try_command(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same.
    ///
    /// # Errors
    ///
    /// When the answer is one, as for a pod that no node has seen yet.
    ///
    /// # Panics
    ///
    /// When no answer comes.
    pub fn try_command(&self, command: &str) -> Result<Value, String> {
        let mut conversation = self.conversation.lock().expect("no test panics while it holds this");
        let input = conversation.input.as_mut().expect("the cluster runs as long as this");
        writeln!(input, "{command}").map_err(|error| format!("{command}: the cluster is gone: {error}; {}", self.errors()))?;
        let answer = self.next_answer(&conversation, command);
        if answer.get("error").is_some() { Err(format!("{command}: {answer}")) } else { Ok(answer) }
    }

    fn answer(&self, what: &str) -> Value {
        self.next_answer(&self.conversation.lock().expect("no test panics while it holds this"), what)
    }

    fn next_answer(&self, conversation: &Conversation, what: &str) -> Value {
        let line = conversation.answers.recv_timeout(START_PATIENCE).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => panic!("{what}: the cluster did not answer in {START_PATIENCE:?}; {}", self.errors()),
            RecvTimeoutError::Disconnected => {
                // It ended: what it said last is on its way.
                drop(self.process.lock().map(|mut process| process.wait()));
                crate::eventually("the cluster's last words", || {
                    if self.errors().is_empty() { Err("none".to_owned()) } else { Ok(()) }
                });
                panic!("{what}: the cluster ended: {}", self.errors())
            }
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what}: {error}: {line}"))
    }

    fn errors(&self) -> String {
        self.errors.lock().expect("no test panics while it holds this").clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is what it ends at.
        if let Ok(mut conversation) = self.conversation.lock() {
            conversation.input = None;
        }
        let Ok(mut process) = self.process.lock() else { return };
        let deadline = std::time::SystemTime::now() + STOP_PATIENCE;
        while matches!(process.try_wait(), Ok(None)) {
            if std::time::SystemTime::now() > deadline {
                eprintln!("the cluster did not end in {STOP_PATIENCE:?} and is killed");
                drop(process.kill());
                drop(process.wait());
                drop(std::fs::remove_dir_all(&self.state));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The folder with the cluster's programs.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let install = repository().join("tests/cluster/install");
        let output = Command::new(&install).arg("--path").output().unwrap_or_else(|error| panic!("{}: {error}", install.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// Tells things of one process apart.
pub(super) fn next_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
