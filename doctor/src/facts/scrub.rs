//! What must not leave the cluster is taken out before it becomes a fact.

use super::workload::Pod;

/// Longest text of a condition or an event that is kept, in characters.
const LONGEST_TEXT: usize = 600;

/// Flags that checks look at. Whatever else a command line says is dropped: keys and tokens are among it.
pub(crate) const KEPT_FLAGS: [&str; 22] = [
    "pool-name",
    "poolName",
    "pool-namespace",
    "poolNamespace",
    "pool-group",
    "v",
    "zap-log-level",
    "log-level",
    "log",
    "config-file",
    "configFile",
    "config-text",
    "configText",
    "secure-serving",
    "secureServing",
    "grpc-port",
    "grpcPort",
    "tracing",
    "port",
    "data-parallel-size",
    "tensor-parallel-size",
    "max-num-seqs",
];

/// Words after which a secret follows.
const BEFORE_SECRETS: [&str; 10] =
    ["bearer ", "basic ", "token=", "token:", "password=", "password:", "apikey=", "api_key=", "api-key=", "secret="];

/// A text without what looks like a credential, without control characters, and no longer than is worth reading.
pub(crate) fn text(raw: &str) -> String {
    let mut rest: String =
        raw.chars().map(|character| if character.is_control() { ' ' } else { character }).take(LONGEST_TEXT).collect();
    for word in BEFORE_SECRETS {
        let mut from = 0;
        while let Some(found) = find_ignoring_case(&rest, word, from) {
            let begin = found + word.len();
            let spaces = rest[begin..].len() - rest[begin..].trim_start().len();
            let begin = begin + spaces;
            let length = rest[begin..].find([' ', '"', '\'', ',', ';', '&', ')']).unwrap_or(rest.len() - begin);
            rest.replace_range(begin..begin + length, "<removed>");
            from = begin + "<removed>".len();
        }
    }
    without_user_info(&rest)
}

fn find_ignoring_case(text: &str, word: &str, from: usize) -> Option<usize> {
    // Only ASCII changes, so positions stay.
    text.to_ascii_lowercase().get(from..)?.find(word).map(|found| found + from)
}

/// `https://user:password@host` without what stands before the `@`.
fn without_user_info(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        told.push_str(before);
        let end = after.find(['/', ' ', '"', '\'', '?']).unwrap_or(after.len());
        let kept = after[..end].rfind('@').map_or(0, |at| at + 1);
        if kept > 0 {
            told.push_str("<removed>@");
        }
        rest = &after[kept..];
    }
    told.push_str(rest);
    told
}

/// Only the flags that checks look at. The text of a configuration is read elsewhere; here only its presence stays.
pub(crate) fn pod(pod: &mut Pod) {
    for container in pod.spec.iter_mut().flat_map(|spec| spec.containers.iter_mut().flatten()) {
        if let Some(arguments) = &mut container.args {
            *arguments = kept(arguments);
        }
    }
}

fn kept(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        if !KEPT_FLAGS.contains(&name) {
            continue;
        }
        if matches!(name, "config-text" | "configText") {
            kept.push(format!("--{name}=<read>"));
            continue;
        }
        kept.push(text(argument));
        if !flag.contains('=')
            && let Some(value) = rest.next_if(|next| !next.starts_with('-'))
        {
            kept.push(text(value));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_stay() {
        for (raw, told) in [
            ("got 401 with Authorization: Bearer abc.def-1, retrying", "got 401 with Authorization: Bearer <removed>, retrying"),
            ("pull https://bob:hunter2@registry/x failed", "pull https://<removed>@registry/x failed"),
            ("a?token=s3cret&b=1 and PASSWORD: pw", "a?token=<removed>&b=1 and PASSWORD: <removed>"),
            ("plain \u{1b}[31mred", "plain  [31mred"),
            ("http://a/b and http://c@d", "http://a/b and http://<removed>@d"),
        ] {
            assert_eq!(text(raw), told);
        }
        assert_eq!(text(&"ü".repeat(9_000)).chars().count(), LONGEST_TEXT);
    }

    #[test]
    fn of_a_command_line_only_known_flags_stay() {
        let arguments = [
            "serve",
            "m",
            "--api-key",
            "hunter2",
            "--port=8000",
            "-v",
            "3",
            "--hf-token=t",
            "--config-text",
            "a: b",
            "--pool-name",
            "p",
        ];
        let arguments: Vec<_> = arguments.map(str::to_owned).into();
        assert_eq!(kept(&arguments), ["--port=8000", "-v", "3", "--config-text=<read>", "--pool-name", "p"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(raw in ".*") {
            text(&raw);
        }

        #[test]
        fn what_follows_a_word_is_gone(before in "[a-z ]{0,20}", secret in "[A-Za-z0-9]{12,30}") {
            for raw in [format!("{before} token={secret} end"), format!("{before} Bearer  {secret}")] {
                proptest::prop_assert!(!text(&raw).contains(&secret));
            }
        }
    }
}
