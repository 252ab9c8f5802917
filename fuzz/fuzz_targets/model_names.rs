//! Rules for names and the classifier, and any name and body asked of them: no panic; what a name comes to stays what it is, and goes into
//! a header; a body that is rewritten differs in its model alone.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use weir_bbr::decide::Routing;
use weir_bbr::plugin::Plugin;
use weir_bbr::rules::{Loaded, Rules};
use weir_bbr::table::Table;

const FIXED: &str = "
apiVersion: weir/v1
names: { models: [glm-5, openai/x], prefixes: [{ prefix: openai }, { prefix: a, action: route }], aliases: { b: glm-5 }, normalise: {} }
mappings: [{ baseModel: llama, adapters: [sql] }]
classifier: [{ name: g, models: [glm-5], simple: s, complex: c, keywords: [design, 重构, überprüfen], tokens: 50, turns: 2 }]
";

fn table(rules: Rules) -> Table {
    Table::new(&Loaded::of(rules).expect("a few words"), &[])
}

static TABLE: LazyLock<Table> = LazyLock::new(|| table(Rules::parse(FIXED).expect("they are sound")));

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let (rules, asked) = text.rsplit_once('\0').unwrap_or(("", text));
        for table in [Some(TABLE.clone()), Rules::parse(rules).ok().map(table)].into_iter().flatten() {
            let Some(names) = &table.names else { continue };
            let once = names.resolve(asked);
            let again = names.resolve(&once.name);
            assert_eq!((&again.name, &again.provider), (&once.name, &once.provider));
            assert!(names.near(asked).len() <= 3);
        }
    }
    let routing = Routing::new(Plugin::defaults());
    let bytes = Bytes::copy_from_slice(input);
    let now = tokio::time::Instant::now();
    let (mut facts, mut rng) = (Vec::new(), StdRng::seed_from_u64(1));
    let Ok(plan) = routing.decide(&bytes, &TABLE, &mut rng, &|| now, &mut facts) else { return };
    for (_, value) in &plan.set {
        assert!(!value.chars().any(char::is_control));
    }
    if let Some(edited) = plan.body {
        let again = routing.decide(&edited, &TABLE, &mut rng, &|| now, &mut facts).expect("only the model differs");
        assert!(again.body.is_none(), "what was chosen stays");
    }
});
