//! The table of names in `docs/body-based-routing.md`: what `weir names test` prints for each of its lines.

use weir_tests::{Folder, repository, run};

/// The cells of the lines of the table that begins with this head.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(head)).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    lines.map(cells).collect()
}

#[test]
fn the_table_of_the_documentation_is_what_the_command_says() {
    let page = std::fs::read_to_string(repository().join("docs/body-based-routing.md")).unwrap();
    let rules = page.split("```yaml\n").find(|block| block.contains("# names.yaml")).unwrap().split("```").next().unwrap();
    let folder = Folder::new("bbr-table");
    let file = folder.write("names.yaml", rules).display().to_string();
    let lines = table(&page, "| a client asks for |");
    assert!(lines.len() >= 12, "{lines:?}");
    for line in &lines {
        let [asked, steps, effective, body] = &line[..] else { panic!("{line:?}") };
        let output = run(&["names", "test", asked, "--file", &file]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stdout).unwrap();
        let rules: Vec<&str> = told
            .lines()
            .take_while(|line| !line.starts_with("effective"))
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| !matches!(*word, "is" | "no"))
            .collect();
        assert_eq!(rules.join(", "), *steps, "{asked}: {told}");
        assert!(told.contains(&format!("\neffective name: {effective}\n")), "{asked}: {told}");
        assert!(told.contains(&format!("\nbody: {body}\n")), "{asked}: {told}");
    }
    // Resolving what it gives changes nothing.
    for line in &lines {
        let told = String::from_utf8(run(&["names", "test", &line[2], "--file", &file]).stdout).unwrap();
        assert!(told.contains(&format!("effective name: {}\n", line[2])), "{told}");
    }
    let shown = String::from_utf8(run(&["names", "show", "--file", &file]).stdout).unwrap();
    assert!(shown.contains("\"normalise\"") && shown.contains("\"glm-5\""), "{shown}");
}
