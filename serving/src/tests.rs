//! Servers over real sockets.

mod authentication;
mod connections;
mod drain;
mod requests;
mod support;
mod tls;
