//! The metrics API asked by the Go clients that Kubernetes itself uses.

use std::process::Command;

use weir_tests::{Folder, Serving, TOKEN, eventually, repository, simulators};

#[test]
fn every_call_of_the_go_clients() {
    let go = Command::new("go").arg("version").output();
    assert!(go.is_ok_and(|go| go.status.success()), "Go is missing: install it to run the clients of tests/clients");
    let folder = Folder::new("clients");
    let (_simulators, addresses) = simulators(2);
    let endpoint = |index: usize, slot: &str| {
        format!("  - {{address: \"{}\", pod: llama-{index}, labels: {{app: llama, slot: {slot}}}}}\n", addresses[index])
    };
    // Port 9 of loopback: nobody listens there.
    let pools = format!(
        "apiVersion: weir/v1\npools:\n- name: llama\n  endpoints:\n{}{}- name: dead\n  endpoints: [\"127.0.0.1:9\"]\n",
        endpoint(0, "a"),
        endpoint(1, "b"),
    );
    let pools = folder.write("pools.yaml", &pools);
    let serving = Serving::start(&folder, &pools);
    eventually("both pools to be looked at", || match serving.page()? {
        page if page.contains("name=\"llama\",namespace=\"default\",state=\"fresh\"} 2.0")
            && page.contains("name=\"dead\",namespace=\"default\",state=\"unreachable\"} 1.0") =>
        {
            Ok(())
        }
        page => Err(page),
    });
    let output = Command::new("go")
        .args(["test", "-count=1", "./..."])
        .current_dir(repository().join("tests/clients"))
        .env("WEIR_ADAPTER", &serving.adapter)
        .env("WEIR_CA", &serving.ca_file)
        .env("WEIR_TOKEN", TOKEN)
        .output()
        .expect("go runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("no test files") && !text.contains("SKIP"), "{text}");
}
