//! What others know of an endpoint before its page shows it: that it has just been given a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use weir_datastore::{EndpointAddress, PoolId};

/// How many cells of endpoints that nobody holds any more are put up with.
const MOST_DEAD: usize = 1024;

/// Which endpoints have requests in flight, told from outside. Clones share it.
///
/// A picker knows that an endpoint works the moment it sends a request there; its page, read once a second while it idles, shows it
/// later. An endpoint that is told to be at work is read at the busy interval at once, until neither this nor its page says so.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    cells: Arc<Mutex<Cells>>,
}

#[derive(Debug, Default)]
struct Cells {
    by_endpoint: HashMap<(PoolId, EndpointAddress), Weak<watch::Sender<bool>>>,
    /// How many there were when the dead ones were last removed.
    kept: usize,
}

/// One endpoint's. Cheap to clone, made to be kept: setting it takes no lock that anybody else waits for.
#[derive(Clone, Debug)]
pub struct EndpointActivity(Arc<watch::Sender<bool>>);

impl Activity {
    /// The cell of the endpoint of `pool` at `address`: the same for everybody who holds it, whether it is being read yet or not.
    pub fn endpoint(&self, pool: &PoolId, address: &EndpointAddress) -> EndpointActivity {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (pool.clone(), address.clone());
        if let Some(known) = cells.by_endpoint.get(&key).and_then(Weak::upgrade) {
            return EndpointActivity(known);
        }
        if cells.by_endpoint.len() >= cells.kept * 2 + MOST_DEAD {
            cells.by_endpoint.retain(|_, cell| cell.strong_count() > 0);
            cells.kept = cells.by_endpoint.len();
        }
        let cell = Arc::new(watch::Sender::new(false));
        cells.by_endpoint.insert(key, Arc::downgrade(&cell));
        EndpointActivity(cell)
    }
}

impl EndpointActivity {
    /// Says whether requests are in flight there. Saying the same again costs a comparison.
    pub fn set(&self, in_flight: bool) {
        self.0.send_if_modified(|before| std::mem::replace(before, in_flight) != in_flight);
    }

    pub(crate) fn get(&self) -> bool {
        *self.0.borrow()
    }

    pub(crate) fn follow(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(activity: &Activity, port: u16) -> EndpointActivity {
        activity.endpoint(&PoolId::new("default", "llama"), &format!("10.0.0.1:{port}").parse().unwrap())
    }

    #[test]
    fn everybody_holds_the_same_cell_of_an_endpoint() {
        let activity = Activity::default();
        let (told, read) = (endpoint(&activity, 1), endpoint(&activity.clone(), 1));
        let mut follows = read.follow();
        told.set(true);
        assert!(read.get() && follows.has_changed().unwrap() && *follows.borrow_and_update());
        told.set(true);
        assert!(!follows.has_changed().unwrap(), "nothing new");
        assert!(!endpoint(&activity, 2).get());
        drop((told, read, follows));
        assert!(!endpoint(&activity, 1).get(), "forgotten with the last who held it");
    }

    #[test]
    fn cells_of_endpoints_that_are_gone_are_removed() {
        let activity = Activity::default();
        let kept = endpoint(&activity, 1);
        (2..10_000).for_each(|port| drop(endpoint(&activity, port)));
        assert!(activity.cells.lock().unwrap().by_endpoint.len() <= MOST_DEAD + 2);
        kept.set(true);
        assert!(endpoint(&activity, 1).get());
    }
}
