//! Histograms of latencies: on every page of a server, read off one in many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use weir_datastore::latency::Latency;

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server};
use crate::Restrict;

const BUCKETS: &str = "vllm:time_to_first_token_seconds_bucket";

/// A server in Python that answers `name[]`, and 100 more requests in 0.25 to 0.5 s from one page with histograms to the next.
async fn server(asked: Arc<AtomicU32>) -> Server {
    Server::start(move |head| {
        let restricted = head.contains("name%5B%5D=");
        let asks = |name: &str| !restricted || head.contains(&format!("name%5B%5D={}", name.replace(':', "%3A")));
        let mut page = "vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0.0\n".to_owned();
        if asks(BUCKETS) {
            let count = 100 * (1 + asked.fetch_add(1, Ordering::Relaxed));
            for (bound, count) in [("0.25", 0), ("0.5", count), ("+Inf", count)] {
                page += &format!("{BUCKETS}{{le=\"{bound}\",model_name=\"m\"}} {count}.0\n");
            }
        }
        if !restricted {
            page += &"# HELP python_info\npython_info 1.0\n".repeat(200);
        }
        Answer::Page(page)
    })
    .await
}

#[tokio::test]
async fn one_page_in_10_s_is_read_and_asked_for_them() {
    let asked = Arc::new(AtomicU32::new(0));
    let server = server(asked.clone()).await;
    let mut wanted = pool(&[server.address]);
    wanted.access.restrict = Restrict::Auto;
    let rig = Rig::start(quick(), vec![wanted]);
    let median = || rig.snapshot().and_then(|pool| pool.latency(Latency::TimeToFirstToken, 0.5).ok());
    eventually("restricted pages", || rig.metric("weir_scrape_pages_total{kind=\"restricted\"}") >= 20.0).await;
    assert_eq!(rig.metric("weir_scrape_latency_pages_total"), 1.0, "the whole page, of many");
    assert_eq!((asked.load(Ordering::Relaxed), median()), (1, None));
    eventually("a second page with them", || median().is_some()).await;
    assert_eq!(median().map(|(found, _)| found.value), Some(0.375));
    assert_eq!(rig.metric("weir_scrape_latency_pages_total"), 2.0);
    assert_eq!(rig.metric("weir_scrape_refused_latencies_total"), 0.0);
    assert_eq!(rig.metric("weir_scrape_pages_total{kind=\"full\"}"), 1.0, "and that was a restricted one");
    rig.stop().await;
}

#[tokio::test]
async fn where_this_process_measures_requests_none_is_read() {
    let server = server(Arc::default()).await;
    let (rig, _writers) = Rig::start_with(quick(), vec![pool(&[server.address])], |collector| collector.own_picker("self".into()));
    eventually("pages", || rig.scrapes("ok") >= 5.0).await;
    assert_eq!(rig.metric("weir_scrape_latency_pages_total"), 0.0);
    rig.stop().await;
}
