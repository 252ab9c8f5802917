//! A real Kubernetes control plane with two nodes, for a test: etcd, kube-apiserver and kube-controller-manager in a network
//! namespace of their own, and pods whose containers are real processes. `tests/cluster` builds and runs it, its README says what the
//! nodes can do.
//!
//! [`Cluster::start`] gives a test its own, [`Cluster::shared`] one that all tests of a process use. Both take the calling thread into
//! the cluster's network: threads and processes that it starts from then on reach pods and the API server by their addresses.
//! [`Namespace`] is that network, [`Options`] says what a cluster has, [`skipped`] is the only way around all of it.

mod access;
mod control;
mod namespace;

pub use access::LAST_STATE_LIMIT;
pub use control::{Cluster, Options};
pub use namespace::Namespace;

/// Set to 1, tests that need a cluster are left out.
const SKIP: &str = "WEIR_TESTS_SKIP_CLUSTER";

/// Whether the tests that need a cluster are to be left out; says so when they are. `what` is the test.
pub fn skipped(what: &str) -> bool {
    let skip = std::env::var_os(SKIP).is_some_and(|value| value == "1");
    if skip {
        eprintln!("SKIPPED, as {SKIP}=1 wants: {what}");
    }
    skip
}
