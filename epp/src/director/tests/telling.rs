//! What the picker says of itself.

use tokio::task::JoinHandle;
use weir_datastore::PickerWriter;
use weir_datastore::latency::Latency;

use super::*;

/// Writes what the picker says of itself, through the pool's writer and those sent after it.
fn publishing(rig: &mut Rig) -> (mpsc::UnboundedSender<PickerWriter>, JoinHandle<()>) {
    let (writers, receiver) = mpsc::unbounded_channel();
    writers.send(rig.pickers.remove(0)).unwrap();
    let director = rig.director.clone();
    (writers, tokio::spawn(async move { director.publish(receiver).await }))
}

#[tokio::test(start_paused = true)]
async fn what_the_picker_says_of_itself_is_written_while_it_runs() {
    let mut rig = Rig::new(1);
    rig.all_idle();
    let (writers, publishing) = publishing(&mut rig);
    let told = || {
        let snapshot = rig.store.snapshot(&pool(), &Selector::everything(), Instant::now()).unwrap();
        snapshot.pickers[0].status.load.map(|load| (load.held, load.in_flight, load.arrivals))
    };
    tokio::task::yield_now().await;
    assert_eq!(told(), Some((Some(0), Some(0), 0)));
    let pick = rig.place(request()).await.unwrap();
    drop(rig.place(only(&[])).await.unwrap_err());
    advance(PUBLISH_AT_MOST).await;
    tokio::task::yield_now().await;
    assert_eq!(told(), Some((Some(0), Some(1), 2)), "what was refused arrived too");
    // The pool goes and comes, and with it another writer; the request is in flight all the while.
    rig.topology.replace_all(Vec::new(), Instant::now());
    let change = rig.topology.upsert(spec(&[EndpointState::Ready]), Instant::now());
    change.added_pickers.into_iter().for_each(|writer| writers.send(writer).unwrap());
    advance(PUBLISH_AT_MOST).await;
    tokio::task::yield_now().await;
    assert_eq!(told(), Some((Some(0), Some(1), 2)), "through the new writer");
    drop(pick);
    advance(2 * PUBLISH_AT_LEAST).await;
    tokio::task::yield_now().await;
    assert_eq!(told(), Some((Some(0), Some(0), 2)));
    let snapshot = rig.store.snapshot(&pool(), &Selector::everything(), Instant::now()).unwrap();
    assert_eq!(snapshot.pickers[0].status.load.unwrap().read_at, Instant::now(), "nothing new, but told again");
    publishing.abort();
}

#[tokio::test(start_paused = true)]
async fn what_requests_took_is_measured_by_model_and_told_every_10_s() {
    let mut rig = Rig::new(1);
    rig.all_idle();
    let (_writers, publishing) = publishing(&mut rig);
    tokio::task::yield_now().await;
    for status in [200; 20].into_iter().chain([500; 20]) {
        let mut pick = rig.place(InferenceRequest { streaming: true, ..request() }).await.unwrap();
        pick.ticket.response_started(status, Instant::now());
        // An error at once is no fast answer.
        if status == 200 {
            advance(SECOND / 5).await;
            pick.ticket.response_bytes(10, Instant::now());
            advance(SECOND / 5).await;
            pick.ticket.response_bytes(10, Instant::now());
        }
        pick.ticket.usage(Usage { prompt_tokens: 700, completion_tokens: 5, ..Usage::default() });
        pick.ticket.completed(Instant::now());
    }
    advance(10 * SECOND).await;
    tokio::task::yield_now().await;
    let snapshot = rig.store.snapshot(&pool(), &Selector::everything(), Instant::now()).unwrap();
    let median = |signal| snapshot.latency(signal, 0.5).map(|(found, _)| found.value).unwrap();
    for (signal, expected) in [(Latency::TimeToFirstToken, 0.2), (Latency::EndToEnd, 0.4), (Latency::TimePerOutputToken, 0.05)] {
        assert!((median(signal) / expected - 1.0).abs() < 0.04, "{signal}: {}", median(signal));
    }
    assert!(median(Latency::Queue) < 0.001);
    let (_, told) = snapshot.pickers_measured().next().unwrap();
    assert_eq!((told.models[0].prompts, told.models[0].prompt_tokens), (40, 28_000));
    assert!(!rig.writers[0].wants_latencies(Instant::now()), "nobody need read the servers' histograms");
    publishing.abort();
}

#[tokio::test(start_paused = true)]
async fn others_are_named_for_a_request_whose_endpoint_was_not_reached() {
    let mut rig = Rig::new(3);
    rig.all_idle();
    let asked = request();
    let mut pick = rig.place(asked.clone()).await.unwrap();
    let first = pick.endpoints[0];
    let second = rig.director.instead(&asked, &[first])[0];
    let third = rig.director.instead(&asked, &[first, second])[0];
    let mut all = [first, second, third];
    all.sort();
    assert_eq!(all, [address(0), address(1), address(2)]);
    assert!(rig.director.instead(&asked, &all).is_empty());
    assert_eq!(rig.in_flight().iter().sum::<u64>(), 1, "it is counted where it was placed");
    pick.ticket.served_by(third);
    let of_third = all.iter().position(|at| *at == third).unwrap();
    assert_eq!(rig.in_flight()[of_third], 1, "then where it was served");
    // The gateway's subset holds for others, too.
    let asked = only(&[(first.ip(), Some(first.port()))]);
    assert!(rig.director.instead(&asked, &[first]).is_empty());
}
