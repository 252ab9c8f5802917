//! Scorers and filters by what an endpoint had before, and by what a request says.

use std::time::Duration;

use super::{Parity, idle};

#[test]
fn prefix_cache() {
    Parity::v1_5("prefix-cache-scorer", "").blocks(8).scores(&[
        (idle(), Some(0.0)),
        (idle().matched(2), Some(0.25)),
        (idle().matched(8).unknown(), Some(1.0)),
    ]);
    Parity::v1_5("prefix-cache-scorer", "").blocks(0).scores(&[(idle(), Some(0.0))]);
}

#[test]
fn no_hit_lru() {
    let plugin = Parity::llm_d("no-hit-lru-scorer", "").blocks(4);
    // Somebody has some of it: the same to all.
    plugin.scores(&[(idle().matched(1), Some(0.5)), (idle().cold(3), Some(0.5))]);
    // Nobody has: first who never had one, then who had it longest ago.
    plugin.scores(&[
        (idle().cold(30), Some(0.0)),
        (idle(), Some(1.0)),
        (idle().cold(10), Some(0.5)),
        (idle(), Some(0.75)),
        (idle().cold(20), Some(0.25)),
    ]);
    plugin.scores(&[(idle().cold(9), Some(1.0))]);
    // Of four, two are remembered: the other two count as never used, in their order.
    Parity::llm_d("no-hit-lru-scorer", "lruSize: 2").scores(&[
        (idle().cold(2), Some(1.0)),
        (idle().cold(1), Some(2.0 / 3.0)),
        (idle().cold(4), Some(0.0)),
        (idle().cold(3), Some(1.0 / 3.0)),
    ]);
}

#[test]
fn header_label() {
    let plugin = Parity::llm_d("header-label-affinity-scorer", "headerName: X-Zone, labelKey: zone");
    let table = |same| [(idle().label("zone", "a"), Some(same)), (idle().label("zone", "b"), Some(0.0)), (idle(), Some(0.0))];
    plugin.scores(&table(0.0));
    plugin.header("x-zone", "a").scores(&table(1.0));
}

/// `default/pod-1-rank-0` in base64.
const TOKEN_OF_1: &str = "ZGVmYXVsdC9wb2QtMS1yYW5rLTA=";

#[test]
fn session_tokens() {
    for (kind, group) in [("session-affinity-scorer", "llm-d.ai"), ("session-affinity-filter", "inference.networking.x-k8s.io")] {
        let with = || Parity::of(group, &format!("plugins:\n- type: {kind}\n"));
        let three = [idle(), idle(), idle()];
        let (index, headers) = with().header("x-session-token", TOKEN_OF_1).goes_to(&three);
        assert_eq!((index, headers), (1, vec![("x-session-token".to_owned(), TOKEN_OF_1.to_owned())]), "{kind}");
        let (_, headers) = with().goes_to(&three);
        assert_eq!(headers.len(), 1, "whoever comes without a token is given one");
    }
    let named = "encodedEndpointHeaderConfig: {header: X-Mine}";
    let scorer = Parity::llm_d("session-affinity-scorer", named).header("x-mine", TOKEN_OF_1);
    scorer.scores(&[(idle(), Some(0.0)), (idle(), Some(1.0)), (idle(), Some(0.0))]);
    for token in ["%%%", "ZGVmYXVsdC9ub2JvZHk=", "////"] {
        let scorer = Parity::llm_d("session-affinity-scorer", "").header("x-session-token", token);
        scorer.scores(&[(idle(), Some(0.0)), (idle(), Some(0.0))]);
        let filter = Parity::llm_d("session-affinity-filter", "").header("x-session-token", token);
        filter.leaves(&[(idle(), true), (idle(), true)]);
    }
    let filter = Parity::llm_d("session-affinity-filter", "").header("x-session-token", TOKEN_OF_1);
    filter.leaves(&[(idle(), false), (idle(), true), (idle(), false)]);
}

#[test]
fn sessions_by_id() {
    let parameters =
        "strategy: session_id, sessionIdConfig: {evictionTtlSeconds: 60, sources: [{header: x-chat}, {header: x-user}]}";
    for kind in ["session-affinity-scorer", "session-affinity-filter"] {
        let mut parity = Parity::llm_d(kind, parameters).header("x-user", "ann");
        // Idle but for their labels, of which nothing is read: an endpoint is known again by its place.
        let (first, headers) = parity.goes_to(&[idle(), idle(), idle(), idle()]);
        assert!(headers.is_empty());
        for _ in 0..20 {
            assert_eq!(parity.goes_to(&[idle(), idle(), idle(), idle()]).0, first, "{kind}");
        }
        parity.asked.now += Duration::from_secs(59);
        assert_eq!(parity.goes_to(&[idle(), idle(), idle(), idle()]).0, first, "it was not quiet for long");
        // The first source that is there has the id.
        parity = parity.header("x-chat", "other");
        let (others, _) = parity.goes_to(&[idle(), idle(), idle(), idle()]);
        assert_eq!(parity.goes_to(&[idle(), idle(), idle(), idle()]).0, others);
        parity = parity.header("x-chat", "ann");
        assert_eq!(parity.goes_to(&[idle(), idle(), idle(), idle()]).0, first, "an id is an id, whichever header it came in");
    }
    // Where its endpoint is gone a session moves, and stays where it moved to; it does not move for one request that goes elsewhere.
    let pinned = |parity: &Parity, endpoints: usize| {
        let table: Vec<_> = (0..endpoints).map(|_| (idle(), ())).collect();
        let loads = parity.loads(&table);
        let scores = parity.asked.scores(&*parity.config.profiles[0].scorers[0].scorer.plugin, &loads);
        scores.iter().position(|score| *score == Some(1.0))
    };
    let all = [idle(), idle(), idle()];
    let by_turn = (1..100).map(|turn| {
        let mut parity = Parity::llm_d("session-affinity-scorer", parameters).header("x-user", "ann");
        parity.asked.turn = turn;
        parity
    });
    let mut parity =
        by_turn.into_iter().find(|parity| parity.goes_to(&all).0 == 2).expect("one of a hundred goes to the last of three");
    assert_eq!(pinned(&parity, 2), None, "its endpoint is not among them");
    let moved_to = parity.goes_to(&[idle(), idle()]).0;
    assert_eq!(pinned(&parity, 3), Some(moved_to));
    parity.asked.now += Duration::from_secs(61);
    assert_eq!(pinned(&parity, 3), None, "quiet for too long");
}

#[test]
fn prefix_affinity() {
    let table =
        |two, four| [(idle().matched(2), two), (idle().matched(4), four), (idle().matched(10).unknown(), true), (idle(), two)];
    // 80 % of ten blocks.
    Parity::llm_d("prefix-cache-affinity-filter", "").blocks(10).leaves(&table(false, false));
    Parity::llm_d("prefix-cache-affinity-filter", "affinityThreshold: 0.4").blocks(10).leaves(&table(false, true));
    for keeps_all in ["affinityThreshold: 0", "explorationProbability: 1"] {
        Parity::llm_d("prefix-cache-affinity-filter", keeps_all).blocks(10).leaves(&table(true, true));
    }
    Parity::llm_d("prefix-cache-affinity-filter", "").blocks(100).leaves(&table(true, true));
    Parity::llm_d("prefix-cache-affinity-filter", "").blocks(10).leaves(&[(idle(), true)]);
    // 15,928 tokens a second: 18 s later is 286,704 tokens more.
    let busy = |tokens, stays, others| [(idle().matched(9).tokens(tokens), stays), (idle().tokens(1000), others)];
    Parity::llm_d("prefix-cache-affinity-filter", "")
        .blocks(10)
        .leaves(&busy(287_704, true, false))
        .leaves(&busy(287_705, true, true));
    Parity::llm_d("prefix-cache-affinity-filter", "maxTTFTPenaltyMs: 0").blocks(10).leaves(&busy(99_999_999, true, false));
    // v1.5.0 knows that time by its predictor alone: without one no wait is too long.
    Parity::v1_5("prefix-cache-affinity-filter", "explorationProbability: 0").blocks(10).leaves(&busy(99_999_999, true, false));
}
