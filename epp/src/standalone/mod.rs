//! The picker without a gateway: a reverse proxy that asks the same director.
//!
//! A request becomes an [`crate::exchange::Exchange`] as a gateway's stream does, so what is read, refused, rewritten and counted is the
//! same; what a gateway would do with the replies is done here.
//!
//! 1. `head`: heads of HTTP as the exchange has them, and its changes of them.
//! 2. `placing`: reads a request until it is placed.
//! 3. `upstream`: sends it to the endpoints picked, in their order.
//! 4. `relay`: passes the answer on.
//! 5. `comments`: what a client that waits for a streamed answer hears meanwhile.
//! 6. `proxy`: all of it together; `metrics`: what it counts.

mod comments;
mod head;
mod metrics;
mod placing;
mod proxy;
mod relay;
mod upstream;

#[cfg(test)]
mod tests;

pub use proxy::{Proxy, ProxySettings};
