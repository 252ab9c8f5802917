//! What a key and a value may be, and the words of Kubernetes where they may not.

/// Longest name part of a key, and longest value.
const LONGEST: usize = 63;

/// Longest prefix of a key.
const LONGEST_PREFIX: usize = 253;

fn is_name(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(inner),
        _ => false,
    }
}

fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= LONGEST_PREFIX && text.split('.').all(label)
}

pub(super) fn wrong_key(key: &str) -> Option<String> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, _)) if !is_subdomain(prefix) => {
            return Some(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                 start and end with an alphanumeric character"
                    .into(),
            );
        }
        Some((_, name)) => name,
    };
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > LONGEST {
        return Some(format!("name part must be no more than {LONGEST} characters"));
    }
    (!is_name(name)).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
         (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            .into()
    })
}

pub(super) fn wrong_value(value: &str) -> Option<String> {
    if value.len() > LONGEST {
        return Some(format!("must be no more than {LONGEST} characters"));
    }
    (!value.is_empty() && !is_name(value)).then(|| {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
         an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .into()
    })
}
