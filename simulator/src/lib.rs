//! A model server without a GPU: the OpenAI API and a vLLM metrics page over a queueing model.
//!
//! One replica is a [`model::Model`] (pure: queue, KV blocks, step times; the clock and the random numbers are arguments), the page an
//! engine would show of it ([`page`]), and an HTTP server that runs the model in real time ([`Server`]). Many replicas share one process
//! ([`Fleet`]); an idle one costs a parked task.
//!
//! ```no_run
//! # async fn example() -> Result<(), weir_simulator::StartError> {
//! use weir_simulator::{Server, ServerConfig};
//! let server = Server::start(ServerConfig { name: "demo-0".into(), ..ServerConfig::default() }).await?;
//! println!("curl http://{}/v1/models", server.addr());
//! # Ok(()) }
//! ```
//!
//! What is not modelled: speculative decoding, KV offloading and transfer between replicas, several data-parallel ranks behind one page,
//! and sharing of cached prefix blocks (a hit saves prefill time; the blocks are charged to every sequence in full).

pub mod profile;

pub mod model;

pub mod page;

mod server;

pub mod fleet;

pub use fleet::{Fleet, Server, ServerConfig, StartError};
pub use model::Model;
pub use page::Engine;
pub use profile::ServerProfile;
pub use server::faults::{Faults, Hold, MetricsFault};
