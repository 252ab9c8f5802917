use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::plugin::Plugin;

fn follower(path: Option<PathBuf>) -> (Follower, Registry) {
    let mut registry = Registry::default();
    let metrics = BbrMetrics::register(&mut registry, &Plugin::defaults(), "commit", "version");
    (Follower::new(path, metrics, &mut registry).unwrap(), registry)
}

fn page(registry: &Registry) -> String {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
    page
}

fn config_map(name: &str, base: &str, adapters: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), namespace: Some("n".into()), ..ObjectMeta::default() },
        data: Some([("baseModel".to_owned(), base.to_owned()), ("adapters".to_owned(), adapters.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn base(follower: &Follower, model: &str) -> Option<String> {
    follower.table.load().mappings.base_of(model).map(ToString::to_string)
}

#[test]
fn adding_changing_and_deleting_take_effect() {
    let (mut follower, registry) = follower(None);
    let mut listed = None;
    let mut hear = |follower: &mut Follower, event| follower.hear(event, &mut listed);
    hear(&mut follower, Event::Init);
    hear(&mut follower, Event::InitApply(config_map("a", "llama", "[x]")));
    assert_eq!(base(&follower, "x"), None, "a list counts as a whole");
    hear(&mut follower, Event::InitDone);
    assert_eq!(base(&follower, "x").as_deref(), Some("llama"));
    assert!(*follower.synced().borrow());
    hear(&mut follower, Event::Apply(config_map("a", "gemma", "[y]")));
    assert_eq!((base(&follower, "x"), base(&follower, "llama"), base(&follower, "y").as_deref()), (None, None, Some("gemma")));
    // What cannot be read leaves the last good version.
    hear(&mut follower, Event::Apply(config_map("a", "", "[z]")));
    assert_eq!(base(&follower, "y").as_deref(), Some("gemma"));
    assert!(page(&registry).contains("weir_bbr_wrong_config_maps 1\n"));
    hear(&mut follower, Event::Delete(config_map("a", "", "")));
    assert_eq!((base(&follower, "y"), base(&follower, "gemma")), (None, None));
    let page_now = page(&registry);
    assert!(
        page_now.contains("weir_bbr_wrong_config_maps 0\n") && page_now.contains("weir_bbr_mapped_models{kind=\"adapter\"} 0\n")
    );
    // A list without an object is as good as its deletion.
    hear(&mut follower, Event::Apply(config_map("b", "llama", "[x]")));
    hear(&mut follower, Event::Init);
    hear(&mut follower, Event::InitDone);
    assert_eq!(base(&follower, "x"), None);
}

#[tokio::test]
async fn a_changed_file_takes_effect_and_a_wrong_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    let write = |text: &str| std::fs::write(&path, format!("apiVersion: weir/v1\n{text}")).unwrap();
    write("mappings: [{ baseModel: llama, adapters: [x] }]");
    let (mut follower, registry) = follower(Some(path.clone()));
    assert_eq!(base(&follower, "x").as_deref(), Some("llama"));
    write("mappings: [{ baseModel: gemma, adapters: [x] }]\nclassifier: [{ name: r, simple: a, complex: b }]");
    follower.look().await;
    assert_eq!(base(&follower, "x").as_deref(), Some("gemma"));
    assert!(page(&registry).contains("weir_bbr_classified_total{rule=\"r\",class=\"simple\",reason=\"none\"} 0\n"));
    write("mappings: [{ baseModel: '' }]");
    follower.look().await;
    follower.look().await;
    assert_eq!(base(&follower, "x").as_deref(), Some("gemma"));
    let wrong = page(&registry);
    assert!(wrong.contains("weir_bbr_rules_in_step 0\n") && wrong.contains("outcome=\"refused\"} 1\n"), "{wrong}");
    std::fs::remove_file(&path).unwrap();
    follower.look().await;
    assert!(page(&registry).contains("outcome=\"unreadable\"} 1\n"));
    write("");
    follower.look().await;
    assert_eq!(base(&follower, "x"), None);
    assert!(page(&registry).contains("weir_bbr_rules_in_step 1\n"));
}
