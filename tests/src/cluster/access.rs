//! What a test does with a cluster.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use super::control::next_number;
use crate::kubectl;

/// How much of the last state a failed wait shows, in bytes.
pub const LAST_STATE_LIMIT: usize = 8 * 1024;

/// How long [`Cluster::wait_for`] waits.
const PATIENCE: Duration = Duration::from_secs(180);

impl Cluster {
    /// Runs kubectl as an administrator: what it prints, or what it complains about.
    ///
    /// # Errors
    ///
    /// When kubectl fails: its error output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_reading(arguments, "")
    }

    /// The same, with `input` on its standard input.
    ///
    /// # Errors
    ///
    /// As [`Self::kubectl`].
    pub fn kubectl_reading(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(kubectl());
        // Its caches must not meet those of other clusters at the same address.
        command
            .arg("--cache-dir")
            .arg(self.state().join("kubectl-cache"))
            .args(arguments)
            .env("KUBECONFIG", self.path("kubeconfig"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.network().within(|| {
            let mut child = command.spawn().map_err(|error| format!("kubectl: {error}"))?;
            let mut standard_input = child.stdin.take().expect("piped");
            let (sent, output) = std::thread::scope(|scope| {
                let sent = scope.spawn(move || standard_input.write_all(input.as_bytes()));
                let output = child.wait_with_output();
                (sent.join().expect("writing does not panic"), output)
            });
            let output = output.map_err(|error| format!("kubectl: {error}"))?;
            if output.status.success() {
                sent.map_err(|error| format!("kubectl did not read its input: {error}"))?;
            }
            Ok::<_, String>(output)
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("kubectl {arguments:?}: {}", text(&output.stderr)))
        }
    }

    /// Applies objects in YAML or JSON to a namespace.
    ///
    /// # Panics
    ///
    /// When kubectl fails.
    pub fn apply(&self, namespace: &str, objects: &str) {
        self.kubectl_reading(&["apply", "-n", namespace, "-f", "-"], objects).unwrap_or_else(|error| panic!("{error}\n{objects}"));
    }

    /// An object as JSON: `what` is what kubectl calls it (`pod/a`, `pods -l app=a`).
    ///
    /// # Errors
    ///
    /// As [`Self::kubectl`].
    pub fn get(&self, namespace: &str, what: &str) -> Result<Value, String> {
        let mut arguments = vec!["get", "-n", namespace, "-o", "json"];
        arguments.extend(what.split_whitespace());
        serde_json::from_str(&self.kubectl(&arguments)?).map_err(|error| error.to_string())
    }

    /// The answer of the API server for a path.
    ///
    /// # Errors
    ///
    /// As [`Self::kubectl`].
    pub fn raw(&self, path: &str) -> Result<String, String> {
        self.kubectl(&["get", "--raw", path])
    }

    /// The body at a URL, asked from within the cluster's network, whatever the status.
    ///
    /// # Errors
    ///
    /// When nobody answers.
    pub fn http(&self, url: &str) -> Result<String, String> {
        self.network().within(|| crate::get(url))
    }

    /// Waits until `condition` gives a value; an error is the state seen last.
    ///
    /// # Panics
    ///
    /// When it takes longer than three minutes, which is for machines that are busy: with that state.
    pub fn wait_for<T>(&self, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
        let deadline = std::time::SystemTime::now() + PATIENCE;
        loop {
            match condition() {
                Ok(value) => return value,
                Err(mut last) if std::time::SystemTime::now() > deadline => {
                    last.truncate(last.floor_char_boundary(LAST_STATE_LIMIT));
                    panic!("{what}: not in {PATIENCE:?}; last: {last}");
                }
                // The outside world has no event to wait for: look again soon.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// What kubectl describes, for a failure's message; `what` as for [`Self::get`].
    pub fn describe(&self, namespace: &str, what: &str) -> String {
        let mut arguments = vec!["describe", "-n", namespace];
        arguments.extend(what.split_whitespace());
        self.kubectl(&arguments).unwrap_or_else(|error| error)
    }

    /// A namespace of its own for a test, ready for pods. It goes with the cluster.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn namespace(&self, name: &str) -> String {
        let name = format!("{name}-{}", next_number());
        self.kubectl(&["create", "namespace", &name]).unwrap_or_else(|error| panic!("{error}"));
        // Before that no pod is admitted.
        self.wait_for("its service account", || self.get(&name, "serviceaccount/default"));
        name
    }

    /// The pods with a label selector that are Ready and not on their way out, by name, with their addresses.
    ///
    /// # Errors
    ///
    /// As [`Self::kubectl`].
    pub fn ready_pods(&self, namespace: &str, selector: &str) -> Result<Vec<(String, String)>, String> {
        let pods = self.get(namespace, &format!("pods -l {selector}"))?;
        let text = |pod: &Value, pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ready = |pod: &&Value| {
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
            pod.pointer("/metadata/deletionTimestamp").is_none()
                && conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        let items = pods["items"].as_array().ok_or_else(|| format!("no list: {pods}"))?;
        Ok(items.iter().filter(ready).map(|pod| (text(pod, "/metadata/name"), text(pod, "/status/podIP"))).collect())
    }

    /// Waits until exactly `count` pods with a label selector are Ready, and gives them.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_for`].
    pub fn wait_for_pods(&self, namespace: &str, selector: &str, count: usize) -> Vec<(String, String)> {
        self.wait_for(&format!("{count} ready pods of {selector}"), || {
            let pods = self.ready_pods(namespace, selector)?;
            if pods.len() == count {
                Ok(pods)
            } else {
                Err(format!("{pods:?}\n{}", self.describe(namespace, &format!("pods -l {selector}"))))
            }
        })
    }

    /// The address of a pod.
    ///
    /// # Errors
    ///
    /// As [`Self::kubectl`], and as long as it has none.
    pub fn pod_address(&self, namespace: &str, name: &str) -> Result<String, String> {
        let pod = self.get(namespace, &format!("pod/{name}"))?;
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        address.map(str::to_owned).ok_or_else(|| format!("{name} has no address: {}", pod["status"]))
    }

    /// What a container wrote, over all its runs.
    ///
    /// # Errors
    ///
    /// When its log cannot be read, as before its first start.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String, String> {
        let answer = self.try_command(&format!("logs {namespace}/{pod}"))?;
        let file = answer.pointer(&format!("/logs/{container}")).and_then(Value::as_str);
        let file = file.ok_or_else(|| format!("{pod} has no container {container}: {answer}"))?;
        std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
    }
}
