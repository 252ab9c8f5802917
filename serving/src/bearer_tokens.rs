//! Bearer tokens from a file that can be rewritten while the server runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use http::{header, request::Parts};

use crate::{
    Authenticator, Caller, Decision, Reload, ServeError, Verdict,
    files::{Change, FileRole, WatchedFiles},
};

const MAX_FILE_BYTES: u64 = 64 << 10;
const MAX_TOKENS: usize = 256;
/// Longer than any service account token.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Accepts `Authorization: Bearer TOKEN` with a token of a file: one per line, blank lines and lines starting with
/// `#` skipped. The caller's name is `token:LINE`.
///
/// The file is read again when it changes: an emptied file shuts everyone out; one that is missing or holds
/// something else than tokens leaves the old tokens in use. Only digests are kept, compared in constant time.
pub struct BearerTokens {
    tokens: ArcSwap<Vec<Token>>,
    file: Mutex<WatchedFiles>,
    path: PathBuf,
}

struct Token {
    digest: [u8; digest::SHA256_OUTPUT_LEN],
    caller: Caller,
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BearerTokens").field("path", &self.path).finish_non_exhaustive()
    }
}

impl BearerTokens {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ServeError::File`] when it cannot be read, holds no token, or a line is not a token.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ServeError> {
        let role = FileRole::new("token", path.as_ref());
        let file = WatchedFiles::open(vec![role.clone()], MAX_FILE_BYTES)?;
        let tokens = parse(&role, file.content())?;
        if tokens.is_empty() {
            return Err(role.error("holds no token"));
        }
        Ok(Self { tokens: ArcSwap::from_pointee(tokens), file: Mutex::new(file), path: role.path })
    }

    fn judge(&self, request: &Parts) -> Verdict {
        let mut headers = request.headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = headers.next() else {
            return Verdict::NoOpinion;
        };
        if headers.next().is_some() {
            return Verdict::Rejected("several authorization headers");
        }
        let Some(given) = bearer(value.as_bytes()) else {
            return Verdict::NoOpinion;
        };
        let given = digest::digest(&digest::SHA256, given);
        let tokens = self.tokens.load();
        // All are compared: the time tells nothing of which one fits.
        let mut accepted = None;
        for token in tokens.iter() {
            if verify_slices_are_equal(&token.digest, given.as_ref()).is_ok() {
                accepted = Some(&token.caller);
            }
        }
        match accepted {
            Some(caller) => Verdict::Accepted(caller.clone()),
            None => Verdict::Rejected("unknown bearer token"),
        }
    }
}

impl Authenticator for BearerTokens {
    fn name(&self) -> &'static str {
        "bearer token"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, _now: SystemTime) -> Decision<'a> {
        Box::pin(std::future::ready(self.judge(request)))
    }

    fn needs_confidentiality(&self) -> bool {
        true
    }

    fn refresh(&self) -> Option<Reload> {
        const SUBJECT: &str = "tokens";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let parsed = match file.poll() {
            Change::None => return None,
            Change::Unreadable(error) => Err(error),
            Change::Content(content) => {
                let parsed = match file.roles() {
                    [role] => parse(role, &content),
                    _ => Ok(Vec::new()),
                };
                if parsed.is_ok() {
                    file.accept(content);
                }
                parsed
            }
        };
        Some(match parsed {
            Ok(tokens) => {
                self.tokens.store(Arc::new(tokens));
                Reload::Loaded { subject: SUBJECT }
            }
            Err(error) => Reload::Refused { subject: SUBJECT, error },
        })
    }
}

/// The token of an `Authorization` value; the scheme's case does not matter (RFC 9110 §11.1).
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

fn parse(role: &FileRole, contents: &[Vec<u8>]) -> Result<Vec<Token>, ServeError> {
    let mut tokens = Vec::new();
    for (index, line) in contents.iter().flat_map(|content| content.split(|byte| *byte == b'\n')).enumerate() {
        let line = line.trim_ascii();
        let number = index + 1;
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line.len() > MAX_TOKEN_BYTES {
            return Err(role.error(format!("line {number} is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        // RFC 6750 §2.1: what a client can send.
        if let Some(bad) = line.iter().find(|byte| !is_token_byte(**byte)) {
            return Err(
                role.error(format!("line {number} is not a bearer token: letters, digits and -._~+/= only, not byte 0x{bad:02x}"))
            );
        }
        if tokens.len() == MAX_TOKENS {
            return Err(role.error(format!("holds more than {MAX_TOKENS} tokens")));
        }
        let mut digest = [0; digest::SHA256_OUTPUT_LEN];
        digest.copy_from_slice(digest::digest(&digest::SHA256, line).as_ref());
        tokens.push(Token { digest, caller: Caller::new(format!("token:{number}"), []) });
    }
    Ok(tokens)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(content: &str) -> (tempfile::TempDir, Result<BearerTokens, ServeError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, content).unwrap();
        let tokens = BearerTokens::from_file(path);
        (folder, tokens)
    }

    fn request(values: &[&str]) -> Parts {
        let mut builder = http::Request::builder();
        for value in values {
            builder = builder.header("authorization", *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn accepted(line: usize) -> Verdict {
        Verdict::Accepted(Caller::new(format!("token:{line}"), []))
    }

    #[test]
    fn each_line_is_a_caller() {
        let (_folder, tokens) = tokens("# readers\nfirst-token\r\n\n  second.token== \n");
        let tokens = tokens.unwrap();
        let judge = |value: &str| tokens.judge(&request(&[value]));
        assert_eq!(judge("Bearer first-token"), accepted(2));
        assert_eq!(judge("bearer   second.token=="), accepted(4));
        for unknown in ["Bearer first-toke", "Bearer first-tokenx", "Bearer # readers"] {
            assert!(matches!(judge(unknown), Verdict::Rejected(_)), "{unknown}");
        }
        for other in ["Basic first-token", "Bearer", "Bearer ", "Bearer\tx", ""] {
            assert_eq!(judge(other), Verdict::NoOpinion, "{other}");
        }
        assert_eq!(tokens.judge(&request(&[])), Verdict::NoOpinion);
        let twice = request(&["Bearer first-token", "Bearer first-token"]);
        assert!(matches!(tokens.judge(&twice), Verdict::Rejected(_)));
    }

    #[test]
    fn errors_name_the_line_and_not_its_content() {
        let problem = |content: &str| tokens(content).1.unwrap_err().to_string();
        assert!(problem("").ends_with("holds no token"));
        assert!(problem("# only\n").ends_with("holds no token"));
        let bad = problem("good\nse cret\n");
        assert!(bad.contains("line 2 is not a bearer token") && !bad.contains("cret"), "{bad}");
        assert!(problem(&"a\n".repeat(MAX_TOKENS + 1)).ends_with("more than 256 tokens"));
        assert!(problem(&"a".repeat(MAX_TOKEN_BYTES + 1)).contains("line 1 is longer"));
    }

    #[test]
    fn rotation_replaces_emptying_revokes_and_nonsense_keeps() {
        let (folder, tokens) = tokens("old\n");
        let tokens = tokens.unwrap();
        let path = folder.path().join("tokens");
        let judge = |value: &str| tokens.judge(&request(&[value]));
        assert!(tokens.refresh().is_none());

        std::fs::write(&path, "new\n").unwrap();
        assert!(matches!(tokens.refresh(), Some(Reload::Loaded { .. })));
        assert!(matches!(judge("Bearer old"), Verdict::Rejected(_)));
        assert_eq!(judge("Bearer new"), accepted(1));

        std::fs::write(&path, "not a token\n").unwrap();
        assert!(matches!(tokens.refresh(), Some(Reload::Refused { .. })));
        assert!(tokens.refresh().is_none(), "told once");
        assert_eq!(judge("Bearer new"), accepted(1));

        std::fs::write(&path, "").unwrap();
        assert!(matches!(tokens.refresh(), Some(Reload::Loaded { .. })));
        assert!(matches!(judge("Bearer new"), Verdict::Rejected(_)));
    }

    proptest! {
        #[test]
        fn only_the_listed_token_is_accepted(
            listed in "[A-Za-z0-9._~+/=-]{1,40}",
            given in "[A-Za-z0-9._~+/=-]{1,40}",
        ) {
            let (_folder, tokens) = tokens(&listed);
            let verdict = tokens.unwrap().judge(&request(&[&format!("Bearer {given}")]));
            prop_assert_eq!(matches!(verdict, Verdict::Accepted(_)), listed == given);
        }

        #[test]
        fn any_file_is_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(tokens) = parse(&FileRole::new("token", "x"), &[content]) {
                prop_assert!(tokens.len() <= MAX_TOKENS);
            }
        }
    }
}
