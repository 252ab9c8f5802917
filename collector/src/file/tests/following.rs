//! A file that changes under a running process.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::tests::eventually;

struct Followed {
    folder: tempfile::TempDir,
    registry: Registry,
    pools: watch::Receiver<Arc<Vec<WantedPool>>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Followed {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pools.yaml");
        std::fs::write(&path, text(&["first"])).unwrap();
        Self::of(folder, &path)
    }

    fn of(folder: tempfile::TempDir, path: &Path) -> Self {
        let mut registry = Registry::default();
        let (watcher, pools) = PoolsFile::load(path).unwrap().watch(&mut registry);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(watcher.poll_every(Duration::from_millis(20)).run(shutdown.clone()));
        Self { folder, registry, pools, shutdown, task }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pools.yaml")
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.pools.borrow().iter().map(|pool| pool.spec.id.name.to_string()).collect()
    }

    fn shows(&self, line: &str) -> bool {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        page.lines().any(|on_page| on_page == line)
    }

    async fn until(&self, line: &str) {
        eventually(line, || self.shows(line)).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn text(names: &[&str]) -> String {
    let pools: Vec<_> = names.iter().map(|name| format!("- name: {name}\n  endpoints: []\n")).collect();
    format!("apiVersion: weir/v1\npools:\n{}", pools.concat())
}

fn reloads(outcome: &str, count: u32) -> String {
    format!("weir_pools_file_reloads_total{{outcome=\"{outcome}\"}} {count}")
}

#[tokio::test]
async fn an_edit_a_break_and_a_repair() {
    let followed = Followed::start();
    assert_eq!(followed.names(), ["first"]);
    assert!(followed.shows("weir_pools_file_valid 1") && followed.shows(&reloads("applied", 0)));

    followed.write(text(&["first", "second"]));
    followed.until(&reloads("applied", 1)).await;
    assert_eq!(followed.names(), ["first", "second"]);

    followed.write("apiVersion: weir/v1\npools: [{name: third}]\n");
    followed.until(&reloads("invalid", 1)).await;
    assert!(followed.shows("weir_pools_file_valid 0"));
    assert_eq!(followed.names(), ["first", "second"], "the last good version stays");

    followed.write("not: yaml: at all");
    followed.until(&reloads("invalid", 2)).await;

    followed.write(text(&["third"]));
    followed.until(&reloads("applied", 2)).await;
    assert!(followed.shows("weir_pools_file_valid 1"));
    assert_eq!(followed.names(), ["third"]);
    // Many looks later nothing was told twice.
    followed.write("still: bad");
    followed.until(&reloads("invalid", 3)).await;
    followed.write(text(&["third"]));
    followed.until(&reloads("restored", 1)).await;
    assert!(followed.shows(&reloads("invalid", 3)) && followed.shows(&reloads("applied", 2)));
    assert!(followed.shows("weir_pools_file_valid 1"));
    followed.stop().await;
}

#[tokio::test]
async fn a_bad_version_is_told_once_however_often_it_is_looked_at() {
    let mut registry = Registry::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.yaml");
    std::fs::write(&path, text(&["first"])).unwrap();
    let (mut watcher, _pools) = PoolsFile::load(&path).unwrap().watch(&mut registry);
    std::fs::write(&path, "bad").unwrap();
    for _ in 0..5 {
        watcher.look().await;
    }
    std::fs::remove_file(&path).unwrap();
    for _ in 0..3 {
        watcher.look().await;
    }
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    assert!(page.contains(&reloads("invalid", 1)) && page.contains(&reloads("unreadable", 1)), "{page}");
}

#[tokio::test]
async fn a_half_written_file_is_not_taken_for_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.yaml");
    std::fs::write(&path, text(&["first", "second"])).unwrap();
    let (mut watcher, pools) = PoolsFile::load(&path).unwrap().watch(&mut Registry::default());
    std::fs::write(&path, text(&["first"])).unwrap();
    tokio::join!(watcher.look(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::fs::write(&path, text(&["first", "second", "third"])).unwrap();
    });
    assert_ne!(pools.borrow().len(), 1, "the half must not be in force");
    watcher.look().await;
    assert_eq!(pools.borrow().len(), 3);
}

#[tokio::test]
async fn a_file_renamed_over_it_and_one_that_goes_away() {
    let followed = Followed::start();
    let beside = followed.folder.path().join(".pools.yaml.swp");
    std::fs::write(&beside, text(&["renamed"])).unwrap();
    std::fs::rename(&beside, followed.path()).unwrap();
    followed.until(&reloads("applied", 1)).await;
    assert_eq!(followed.names(), ["renamed"]);

    std::fs::remove_file(followed.path()).unwrap();
    followed.until(&reloads("unreadable", 1)).await;
    assert!(followed.shows("weir_pools_file_valid 0"));
    assert_eq!(followed.names(), ["renamed"]);

    followed.write(text(&["back"]));
    followed.until("weir_pools_file_valid 1").await;
    assert_eq!(followed.names(), ["back"]);
    followed.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_config_map_swaps_its_symbolic_link() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("pools.yaml"), text(&[name])).unwrap();
    };
    version("v1");
    version("v2");
    let path = folder.path().join("pools.yaml");
    symlink("v1", folder.path().join("..data")).unwrap();
    symlink("..data/pools.yaml", &path).unwrap();
    let followed = Followed::of(folder, &path);
    assert_eq!(followed.names(), ["v1"]);
    symlink("v2", followed.folder.path().join("..data_tmp")).unwrap();
    std::fs::rename(followed.folder.path().join("..data_tmp"), followed.folder.path().join("..data")).unwrap();
    followed.until(&reloads("applied", 1)).await;
    assert_eq!(followed.names(), ["v2"]);
    followed.stop().await;
}

#[tokio::test]
async fn a_version_that_waits_for_another_file_becomes_good_with_it() {
    let followed = Followed::start();
    let https = "- name: tls\n  endpoints: []\n  metrics: {scheme: https, bearerTokenFile: token}\n";
    followed.write(format!("apiVersion: weir/v1\npools:\n{https}"));
    followed.until(&reloads("invalid", 1)).await;
    assert_eq!(followed.names(), ["first"]);
    std::fs::write(followed.folder.path().join("token"), "abc").unwrap();
    followed.until(&reloads("applied", 1)).await;
    assert_eq!(followed.names(), ["tls"]);
    assert!(followed.shows(&reloads("invalid", 1)));
    followed.stop().await;
}
