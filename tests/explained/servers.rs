//! Model servers that are played: one listener for the addresses of all pods, each with the page that it is given.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::StatusCode;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use weir_tests::workload::MODEL_PORT;

/// What one server shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    /// KV-cache utilisation in hundredths.
    pub(crate) kv_cache: u32,
}

impl Load {
    fn page(self) -> String {
        let Self { running, waiting, kv_cache } = self;
        let labels = "{model_name=\"llama\",engine=\"0\"}";
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{labels} {running}\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{labels} {waiting}\n\
             # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{labels} {}\n",
            f64::from(kv_cache) / 100.0
        )
    }
}

type Pages = Arc<Mutex<HashMap<IpAddr, Load>>>;

/// Answers until dropped. An address without a load answers 503.
pub(crate) struct Servers {
    pages: Pages,
    _runtime: Runtime,
}

/// The address that was called.
#[derive(Clone, Copy, Debug)]
struct Called(IpAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Called {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip()))
    }
}

impl Servers {
    /// Listens in the network that the calling thread is in.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let pages = Pages::default();
        let known = pages.clone();
        let answer = move |ConnectInfo(Called(address)): ConnectInfo<Called>| {
            let load = known.lock().unwrap().get(&address).copied();
            std::future::ready(load.map(Load::page).ok_or(StatusCode::SERVICE_UNAVAILABLE))
        };
        let listener = runtime.block_on(TcpListener::bind(("0.0.0.0", MODEL_PORT))).unwrap();
        let router = Router::new().route("/metrics", axum::routing::get(answer));
        let service = router.into_make_service_with_connect_info::<Called>();
        runtime.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { pages, _runtime: runtime }
    }

    /// What the server at an address shows from now on; none: it answers 503.
    pub(crate) fn answer(&self, address: &str, load: Option<Load>) {
        let address: IpAddr = address.parse().unwrap();
        let mut pages = self.pages.lock().unwrap();
        match load {
            Some(load) => drop(pages.insert(address, load)),
            None => drop(pages.remove(&address)),
        }
    }
}
