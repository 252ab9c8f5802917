//! The page as tests read it.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The page of `registry`.
pub(crate) fn page(registry: &Registry) -> String {
    let mut page = String::new();
    encode(&mut page, registry).unwrap();
    page
}

/// Asserts that `line` is on the page.
pub(crate) fn shows(registry: &Registry, line: &str) {
    let page = page(registry);
    assert!(page.lines().any(|on_page| on_page == line), "no `{line}` in\n{page}");
}
