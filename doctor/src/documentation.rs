//! The table of checks as a page: `docs/troubleshooting.md`.

use crate::checks::CHECKS;
use crate::finding::{Check, Elsewhere, Family};

const HEAD: &str = "# Troubleshooting

Written by `WEIR_WRITE_DOCS=1 cargo test -p weir-doctor documentation` from the table of checks; a test fails where it differs.

`weir doctor` looks for everything below, from outside, with the rights of your kubeconfig and nothing installed:

```sh
weir doctor                       # all namespaces that may be read
weir doctor -n team-a             # one namespace
weir doctor --pool vllm-llama3    # what concerns one pool
weir doctor --output json         # for programs
weir doctor --record facts.json   # write down what was seen, for a bug report
weir doctor --from facts.json     # examine what was written down
kubectl weir doctor               # the same, with the program in the PATH as kubectl-weir
```

It lists objects, reads metrics pages and `/v1/models` of the pools' pods through the API server (`pods/proxy`), and the last lines of the
pickers' logs. What it may not read it names, with the checks that lack it; nothing unknown is taken for missing. A record holds the fields that
checks look at and no others: no Secrets, no environment values, no log lines, no prompts; command lines without what is not needed.

Its rights: `get`, `list` on what is listed, `get` on `pods/proxy`, `pods/log` and on ConfigMaps of pickers; of Secrets that monitors name it asks
for the metadata alone. Nothing is written to the cluster.

`weir explain hpa NAME` asks the metrics API as the autoscaler does and shows its arithmetic: each value and its age, target, ratio, tolerance, Ready
pods, proposal, which metric wins, what window, policies or bounds hold it, and the next size; without a name, for all autoscalers of the namespace;
with `-o json` for programs. What the controller remembers of earlier turns it keeps to itself: recommendations for its windows, changes of size for
its policies. `explain` takes what the status and the Events of the last hour tell of them, and where the rest makes a difference it says so under
`unless`. It assumes a turn of 15 s, a tolerance of 0.1 and a scale-down window of 5 min, which are the controller's defaults, and that the controller
was not started anew since. `weir explain pool NAME` shows the pool's servers, their
numbers, and the means, totals and saturation that follow.

| `weir doctor` returns | when |
|---|---|
| 0 | nothing was found, or notes only |
| 1 | warnings |
| 2 | errors |
| 3 | it could not look: no cluster, no such file, no such form |
";

/// The page.
pub fn documentation() -> String {
    let mut page = HEAD.to_owned();
    for family in Family::ALL {
        page.push_str(&format!("\n## {}\n\n| code | |\n|---|---|\n", family.as_str()));
        for check in CHECKS.iter().filter(|check| check.family == family) {
            page.push_str(&format!("| [`{0}`](#{0}) | {1} |\n", check.code, check.title));
        }
        for check in CHECKS.iter().filter(|check| check.family == family) {
            page.push_str(&format!(
                "\n### {}\n\n**{}** ({}). {}\n\n{}\n\nNeeds: {}.\n",
                check.code,
                check.title,
                check.severity.as_str(),
                check.about,
                elsewhere(check),
                check.needs.join(", ")
            ));
        }
    }
    page
}

/// Where servers of weir's name the same cause.
fn elsewhere(check: &Check) -> String {
    match check.elsewhere {
        Elsewhere::Told { log: true, metric } => format!("In the logs of weir: `code=\"{}\"`; metric: `{metric}`.", check.code),
        Elsewhere::Told { log: false, metric } => format!("In no log of weir; metric: `{metric}`."),
        Elsewhere::Outside(why) => format!("Seen from outside only: {why}"),
    }
}
