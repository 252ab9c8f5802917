//! Names that Kubernetes would take, since a pool of a file is the pool of a cluster without one.
//!
//! Source: RFC 1123 as `k8s.io/apimachinery/pkg/util/validation` reads it.

/// A namespace: one label.
pub(super) fn check_label(text: &str) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    Err(refusal(text, "lower-case letters, digits and `-`, a letter or digit at both ends, at most 63 characters", '-'))
}

/// A pool or a pod: labels with dots between.
pub(super) fn check_subdomain(text: &str) -> Result<(), String> {
    if is_subdomain(text) {
        return Ok(());
    }
    Err(refusal(text, "lower-case letters, digits, `-` and `.`, a letter or digit at both ends, at most 253 characters", '.'))
}

/// The key of a label: a name, or a domain, `/` and a name.
pub(super) fn check_label_key(text: &str) -> Result<(), String> {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    let good = !name.is_empty() && is_label_text(name) && domain.is_none_or(is_subdomain);
    if good {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a label key: write `name` or `domain/name`, the name of letters, digits, `-`, `_` and `.`, at most 63 characters"
    ))
}

/// The value of a label.
pub(super) fn check_label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_label_text(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a label value: write letters, digits, `-`, `_` and `.`, a letter or digit at both ends, at most 63 characters"
    ))
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_label(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends_well(text, |byte| byte.is_ascii_alphanumeric())
}

fn is_dns_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty() && text.bytes().all(|byte| plain(byte) || byte == b'-') && ends_well(text, plain)
}

fn ends_well(text: &str, good: impl Fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(&good) && text.bytes().next_back().is_some_and(good)
}

fn refusal(text: &str, rule: &str, also: char) -> String {
    if text.is_empty() {
        return format!("is empty: give a name ({rule})");
    }
    let replaced: String = text
        .to_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || character == also { character } else { '-' })
        .collect();
    let repaired = replaced.trim_matches(['-', '.']);
    let is_good = if also == '.' { is_subdomain } else { is_label };
    let suggestion = match is_good(repaired) {
        true => format!("; try `{repaired}`"),
        false => String::new(),
    };
    format!("`{text}` is not a name that Kubernetes takes (RFC 1123: {rule}){suggestion}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        assert_eq!(check_label("team-a"), Ok(()));
        assert_eq!(check_label(&"a".repeat(63)), Ok(()));
        assert_eq!(check_subdomain("vllm.llama-3.1"), Ok(()));
        assert_eq!(check_subdomain("123"), Ok(()));
        for bad in ["", "-a", "a-", "a_b", "A", "a.b", &"a".repeat(64), "é", "a b"] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
        for bad in ["", ".a", "a.", "a..b", "a/b", &"a".repeat(254)] {
            assert!(check_subdomain(bad).is_err(), "{bad}");
        }
        assert!(check_label("My_Team.").unwrap_err().ends_with("; try `my-team`"));
        assert!(!check_label("ü").unwrap_err().contains("try"));
    }

    #[test]
    fn labels_follow_kubernetes() {
        for good in ["role", "app.kubernetes.io/name", "A_b.c"] {
            assert_eq!(check_label_key(good), Ok(()));
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "A.io/b", &"a".repeat(64)] {
            assert!(check_label_key(bad).is_err(), "{bad}");
        }
        for good in ["", "1.10", "true", "A_b"] {
            assert_eq!(check_label_value(good), Ok(()));
        }
        for bad in ["a b", "-", "a,b", &"a".repeat(64)] {
            assert!(check_label_value(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_suggested_name_is_a_good_one(text in ".{0,80}") {
            for (check, outcome) in [(check_label as fn(&str) -> _, check_label(&text)), (check_subdomain, check_subdomain(&text))] {
                if let Err(message) = outcome
                    && let Some((_, suggested)) = message.rsplit_once("; try `")
                {
                    prop_assert_eq!(check(suggested.trim_end_matches('`')), Ok(()));
                }
            }
        }
    }
}
