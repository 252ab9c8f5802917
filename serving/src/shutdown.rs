//! SIGTERM and SIGINT: the first asks, the second insists.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Turns the process' termination signals into a token that every server drains on. Signals are watched while
/// this exists.
#[derive(Debug)]
pub struct Shutdown {
    token: CancellationToken,
    insisted: watch::Receiver<Option<Kind>>,
    _watcher: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Interrupt,
    Terminate,
}

impl Kind {
    /// What a shell reports for a process ended by this signal: 128 + its number.
    fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

impl Shutdown {
    /// Starts watching; call it inside a runtime, before anything that takes time.
    ///
    /// # Errors
    /// When the system refuses a signal handler.
    pub fn on_signals() -> io::Result<Self> {
        let mut signals = Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
        let token = CancellationToken::new();
        let (insist, insisted) = watch::channel(None);
        let asked = token.clone();
        let watcher = tokio::spawn(async move {
            let first = signals.next().await;
            tracing::info!(signal = ?first, "shutting down, a second signal ends at once");
            asked.cancel();
            let second = signals.next().await;
            tracing::warn!(signal = ?second, "ending at once");
            insist.send_replace(Some(second));
        });
        Ok(Self { token, insisted, _watcher: AbortOnDropHandle::new(watcher) })
    }

    /// Cancelled by the first signal. It can also be cancelled from inside: a fatal error shuts down the same way.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for a second signal, and gives the exit code to leave with at once, without waiting for the drain.
    /// Select it against the servers' drain.
    pub async fn insisted(&self) -> u8 {
        let mut insisted = self.insisted.clone();
        loop {
            if let Some(kind) = *insisted.borrow_and_update() {
                return kind.exit_code();
            }
            if insisted.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn next(&mut self) -> Kind {
        tokio::select! {
            Some(()) = self.terminate.recv() => Kind::Terminate,
            Some(()) = self.interrupt.recv() => Kind::Interrupt,
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(signal: &str) {
        let id = std::process::id().to_string();
        let status = tokio::process::Command::new("kill").args(["-s", signal, &id]).status().await.unwrap();
        assert!(status.success());
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_insists() {
        let shutdown = Shutdown::on_signals().unwrap();
        assert!(!shutdown.token().is_cancelled());
        send("TERM").await;
        shutdown.token().cancelled().await;
        assert!(shutdown.insisted.borrow().is_none(), "one signal does not insist");
        send("INT").await;
        assert_eq!(shutdown.insisted().await, 130);
        assert_eq!(shutdown.insisted().await, 130, "it stays so");
    }
}
