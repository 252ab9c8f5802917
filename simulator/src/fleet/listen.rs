//! The accept loop of one replica. It owns every task of the replica and ends them all before it ends itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::server::replica::Replica;

/// Open connections of one replica; more wait in the listener's backlog.
const CONNECTIONS_LIMIT: usize = 4096;
/// How long a client may take for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: out of file descriptors, trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until drained or aborted.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    replica: Arc<Replica>,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    let mut driver = JoinSet::new();
    driver.spawn(Arc::clone(&replica).drive());
    let mut connections = JoinSet::new();
    let accepting = accept(&listener, &router, &replica, &drain, &mut connections);
    let drained = tokio::select! {
        biased;
        () = abort.cancelled() => false,
        () = drain.cancelled() => true,
        () = accepting => false,
    };
    drop(listener);
    if drained {
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            () = async { while let Some(ended) = connections.join_next().await { report(&replica, ended) } } => {}
        }
    }
    connections.shutdown().await;
    driver.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    replica: &Replica,
    drain: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => report(replica, ended),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_LIMIT => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, router.clone(), drain.clone()));
                }
                Err(error) => {
                    warn!(pod = replica.name, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn report(replica: &Replica, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(pod = replica.name, %error, "connection task failed");
    }
}

async fn serve_connection(stream: TcpStream, router: Router, drain: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot turn off delays on a connection");
    }
    // HTTP/1.1 only, as the Python servers; HTTP/2 would also spawn tasks that are not ours to end.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that leave, and pages cut off on purpose.
        debug!(%error, "connection ended with an error");
    }
}
