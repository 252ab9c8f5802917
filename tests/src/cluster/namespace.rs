//! The network namespace of a cluster.

use std::fs::File;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, which lives as long as this, or as long as a thread or process is in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a fresh one, with nothing but a loopback interface that is down; the calling thread is in it from now on.
    ///
    /// # Panics
    ///
    /// Without the right to make one.
    pub fn enter_new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
            panic!(
                "no network namespace for a cluster: {error}. Run the tests as root, or as root of a user namespace (`unshare -rn cargo \
                 test …`), or leave out the tests that need a cluster: WEIR_TESTS_SKIP_CLUSTER=1"
            )
        });
        Self(File::open("/proc/thread-self/ns/net").expect("a thread can open its own namespace"))
    }

    /// Takes the calling thread into it. Threads and processes that it starts from then on are in it too; others are not.
    pub fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("who made the namespace can enter it");
    }

    /// Does something within it, on a thread of its own: the calling thread stays where it is.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                what()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
