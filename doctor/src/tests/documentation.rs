//! The page and the table say the same.

use std::path::Path;

#[test]
fn documentation_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = crate::documentation();
    if std::env::var_os("WEIR_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "write it anew: WEIR_WRITE_DOCS=1 cargo test -p weir-doctor documentation");
}
