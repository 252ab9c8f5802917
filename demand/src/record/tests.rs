//! Recorders and their pools; what is written is told beside `lines` and `file`, and from outside in `tests/record.rs`.

use prometheus_client::encoding::text::encode;
use weir_datastore::{PoolSpec, datastore};

use super::*;

fn target(text: &str) -> RecordTarget {
    text.parse().unwrap()
}

#[test]
fn a_target_is_a_file_or_a_pool_and_a_file() {
    let of = |pool: Option<(Option<&str>, &str)>, file: &str| RecordTarget {
        pool: pool.map(|(namespace, name)| (namespace.map(str::to_owned), name.to_owned())),
        file: file.into(),
    };
    assert_eq!(target("a.csv"), of(None, "a.csv"));
    assert_eq!(target("llama=a.csv"), of(Some((None, "llama")), "a.csv"));
    assert_eq!(target("default/llama=/tmp/a=b.csv"), of(Some((Some("default"), "llama")), "/tmp/a=b.csv"));
    // No pool has such a name.
    assert_eq!(target("./A=b.csv"), of(None, "./A=b.csv"));
    assert!("".parse::<RecordTarget>().is_err() && "llama=".parse::<RecordTarget>().is_err());
}

#[test]
fn of_several_pools_one_must_be_named() {
    let pools = [PoolId::new("a", "p"), PoolId::new("a", "q"), PoolId::new("b", "p")];
    assert_eq!(target("q=f").of(&pools), Ok(pools[1].clone()));
    assert_eq!(target("b/p=f").of(&pools), Ok(pools[2].clone()));
    assert_eq!(target("f").of(&pools[..1]), Ok(pools[0].clone()));
    assert_eq!(target("b/q=f").of(&pools).unwrap_err(), "pool b/q is not there yet");
    let several = target("p=f").of(&pools).unwrap_err();
    assert_eq!(several, "there are 2 such pools (a/p, b/p, …): name one, as --record a/p=FILE, once for each");
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_tried_again() {
    let (store, mut topology) = datastore();
    let folder = std::env::temp_dir().join(format!("weir-record-{}", std::process::id()));
    let file = folder.join("trace.csv");
    let mut registry = Registry::default();
    let metrics = RecordMetrics::register(&mut registry);
    let mut recorder = Recorder::new(target(&file.display().to_string()), metrics);
    let (origin, unix) = (Instant::now(), Duration::from_secs(1_000_000));
    let turn = |recorder: &mut Recorder, second: u64| {
        let passed = Duration::from_secs(second);
        recorder.turn(&store, origin + passed, unix + passed, false);
    };
    turn(&mut recorder, 0);
    assert_eq!(recorder.problem.as_deref(), Some("the pool is not there yet"));
    topology.upsert(PoolSpec::empty(PoolId::new("default", "p")), origin);
    turn(&mut recorder, 1);
    turn(&mut recorder, 2);
    assert!(recorder.problem.as_deref().unwrap().contains("No such file"), "{:?}", recorder.problem);
    std::fs::create_dir_all(&folder).unwrap();
    turn(&mut recorder, 31);
    turn(&mut recorder, 32);
    assert_eq!(recorder.problem, None);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    for line in ["weir_record_failures_total{", "weir_record_active{", "weir_record_seconds_total{"] {
        assert!(
            page.lines().any(|known| known.starts_with(line) && known.ends_with(" 1") || known.ends_with(" 1.0")),
            "{line}: {page}"
        );
    }
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(text.starts_with("# weir trace of pool default/p, seconds since 1000031.000 (Unix)\n"), "{text}");
}
