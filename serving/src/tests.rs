//! Servers over real sockets.

mod api_server;
mod authentication;
mod cluster;
mod connections;
mod drain;
mod requests;
mod reviews;
mod shared_authority;
mod support;
mod tls;

use crate::install_crypto_provider;
