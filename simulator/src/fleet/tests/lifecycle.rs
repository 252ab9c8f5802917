use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::*;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn refuses_connections(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn a_hundred_replicas_in_one_process() {
    let base = ServerConfig { name: "replica".into(), profile: quick(), seed: 1, ..ServerConfig::default() };
    let before = tasks();
    let fleet = Fleet::start(base.replicas(100).unwrap()).await.unwrap();
    let client = Client::new();
    let requests = fleet.servers().iter().map(|server| {
        let request = client.post(url(server, "/v1/chat/completions")).body(chat_body("hi", 5).to_string());
        async move {
            let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
            let pod = response.headers()[POD_HEADER].to_str().unwrap().to_owned();
            (pod, json_of(response).await["id"].as_str().unwrap().to_owned())
        }
    });
    let (pods, mut ids): (Vec<_>, Vec<_>) = join_all(requests).await.into_iter().unzip();
    let names: Vec<String> = (0..100).map(|index| format!("replica-{index}")).collect();
    assert_eq!(pods, names);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100, "answer ids do not repeat over a fleet");
    for server in fleet.servers() {
        let view = server.view();
        assert_eq!((view.statistics.finished_length, view.last_step.number, view.running), (1, 5, 0));
    }
    drop(client);
    fleet.stop(PATIENCE).await;
    until("the fleet's tasks are gone", || tasks() <= before).await;
}

#[tokio::test]
async fn stopping_lets_streams_finish_and_refuses_new_ones() {
    let server = start(ServerProfile { inter_token_latency: Duration::from_millis(20), ..quick() }).await;
    let address = server.addr();
    let mut stream = chat(&server, streamed(chat_body("hi", 20))).await;
    stream.chunk().await.unwrap();
    let stopped = tokio::spawn(server.stop(PATIENCE));
    let refused = async {
        while !refuses_connections(address).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    assert!(!stopped.is_finished(), "it waits for the stream");
    assert!(text(stream).await.ends_with("data: [DONE]\n\n"));
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_its_grace() {
    let server = start(slow()).await;
    let mut stream = chat(&server, streamed(chat_body("hi", 1000))).await;
    stream.chunk().await.unwrap();
    timeout(PATIENCE, server.stop(Duration::from_millis(50))).await.unwrap();
    assert!(try_text(stream).await.is_err(), "a stream cut off does not look complete");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_idle_connections() {
    let server = start(quick()).await;
    let _idle = TcpStream::connect(server.addr()).await.unwrap();
    let client = Client::new();
    client.get(url(&server, "/health")).send().await.unwrap();
    timeout(PATIENCE, server.stop(Duration::from_secs(3600))).await.unwrap();
}

#[tokio::test]
async fn an_abort_and_a_drop_and_a_cancel_close_everything() {
    let before = tasks();
    let cancel = CancellationToken::new();
    for how in ["abort", "drop", "cancel"] {
        let config = ServerConfig { profile: slow(), cancel: cancel.clone(), ..ServerConfig::default() };
        let server = Server::start(config).await.unwrap();
        let address = server.addr();
        let mut stream = chat(&server, streamed(chat_body("hi", 1000))).await;
        stream.chunk().await.unwrap();
        assert!(tasks() > before);
        let mut kept = None;
        match how {
            "abort" => server.abort().await,
            "drop" => drop(server),
            _ => {
                cancel.cancel();
                kept = Some(server);
            }
        }
        assert!(try_text(stream).await.is_err(), "{how}");
        until(how, || tasks() <= before).await;
        assert!(refuses_connections(address).await, "{how}");
        drop(kept);
    }
}

#[tokio::test]
async fn a_stopped_replicas_address_is_free_again() {
    let server = start(quick()).await;
    let listen = server.addr();
    let config = ServerConfig { listen, ..ServerConfig::default() };
    let taken = Server::start(config.clone()).await.unwrap_err();
    assert!(matches!(taken, StartError::Bind { address, .. } if address == listen), "{taken}");
    server.abort().await;
    Server::start(config).await.unwrap();
}

#[tokio::test]
async fn a_fleet_starts_whole_or_not_at_all() {
    let before = tasks();
    let good = ServerConfig { profile: quick(), ..ServerConfig::default() };
    let bad = ServerConfig { profile: ServerProfile { max_num_seqs: 0, ..quick() }, ..good.clone() };
    let error = Fleet::start([good.clone(), good, bad]).await.unwrap_err();
    assert!(error.to_string().contains("max_num_seqs"), "{error}");
    assert_eq!(tasks(), before);
    let unnamed = ServerConfig { name: "a\nb".into(), ..ServerConfig::default() };
    assert!(matches!(Server::start(unnamed).await, Err(StartError::Name { .. })));
}

#[tokio::test]
async fn a_starting_replica_is_unavailable_until_it_is_ready() {
    let config = ServerConfig { profile: quick(), start_delay: Duration::from_millis(400), ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    assert_eq!(get(&server, "/health").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused = chat(&server, chat_body("hi", 1)).await;
    assert_eq!((refused.status(), &refused.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    let ready = async {
        while get(&server, "/health").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ready).await.unwrap();
    assert_eq!(chat(&server, chat_body("hi", 1)).await.status(), StatusCode::OK);
}

#[test]
fn addresses_count_up() {
    let base = ServerConfig { listen: "127.1.0.254:8000".parse().unwrap(), ..ServerConfig::default() };
    let listens: Vec<String> = base.replicas(3).unwrap().iter().map(|config| config.listen.to_string()).collect();
    assert_eq!(listens, ["127.1.0.254:8000", "127.1.0.255:8000", "127.1.1.0:8000"]);
    let last = ServerConfig { listen: "255.255.255.255:1".parse().unwrap(), ..ServerConfig::default() };
    assert_eq!(last.replicas(1).unwrap().len(), 1);
    assert!(matches!(last.replicas(2), Err(StartError::Addresses { .. })));
    let free = ServerConfig::default().replicas(2).unwrap();
    assert_eq!(free[0].listen, free[1].listen);
    assert_eq!((free[1].seed, free[1].name.as_str()), (1, "simulator-0-1"));
}
