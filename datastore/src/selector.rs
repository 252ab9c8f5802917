//! Label selectors with the grammar, the meaning and the error texts of Kubernetes (`k8s.io/apimachinery/pkg/labels`).
//!
//! Operators and users read these errors in `kubectl describe hpa`, so they are the ones they know.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

/// Which objects or series are meant: all requirements must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must be true of it.
    pub operator: Operator,
    /// What it is compared with: none for `Exists` and `DoesNotExist`, one for `=`, `!=`, `>` and `<`.
    pub values: BTreeSet<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `key in (…)`, `key = value`, `key == value`: the label has one of the values.
    In,
    /// `key notin (…)`, `key != value`: the label has none of the values, or is absent.
    NotIn,
    /// `key`: the label is there.
    Exists,
    /// `!key`: the label is absent.
    DoesNotExist,
    /// `key > integer`.
    GreaterThan,
    /// `key < integer`.
    LessThan,
}

/// A selector that does not follow the grammar; the text is Kubernetes' own.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum SelectorError {
    /// The words do not form a requirement.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// Something stands where something else must.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What must.
        expected: &'static str,
    },
}

impl Selector {
    /// Matches whatever there is.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of these requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Reads `text`; empty text matches everything.
    ///
    /// # Errors
    /// [`SelectorError`] with the text of Kubernetes' own parser.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let mut requirements = Vec::new();
        loop {
            match parser.peek(Context::Value) {
                Token::Identifier(_) | Token::DoesNotExist => {
                    requirements.push(parser.requirement()?);
                    match parser.next(Context::Value) {
                        Token::End => break,
                        Token::Comma => match parser.peek(Context::Value) {
                            Token::Identifier(_) | Token::DoesNotExist => {}
                            other => return unexpected(other, "identifier after ','"),
                        },
                        other => return unexpected(other, "',' or 'end of string'"),
                    }
                }
                Token::End => break,
                other => return unexpected(other, "!, identifier, or 'end of string'"),
            }
        }
        Ok(Self { requirements })
    }

    /// The requirements, in the order written.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it matches whatever there is.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all requirements hold for the labels that `label` looks up.
    pub fn matches<'value>(&self, label: impl Fn(&str) -> Option<&'value str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl Requirement {
    /// Whether the requirement holds where the label has `value`, or is absent.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let compare = |holds: fn(&i64, &i64) -> bool| {
            let number = |text: &str| text.parse::<i64>().ok();
            let bound = self.values.first().and_then(|bound| number(bound));
            value.and_then(number).zip(bound).is_some_and(|(value, bound)| holds(&value, &bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }

    fn checked(key: String, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        if let Some(wrong) = wrong_key(&key) {
            return Err(SelectorError::Requirement(format!("<nil>: Invalid value: {key:?}: {wrong}")));
        }
        let compares = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        for (position, value) in values.iter().enumerate() {
            if compares && value.parse::<i64>().is_err() {
                let wrong = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(SelectorError::Requirement(format!("values[{position}][{key}]: Invalid value: {value:?}: {wrong}")));
            }
            if let Some(wrong) = wrong_value(value) {
                return Err(SelectorError::Requirement(format!("values[{position}][{key}]: Invalid value: {value:?}: {wrong}")));
            }
        }
        Ok(Self { key, operator, values })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            requirement.fmt(formatter)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let joined = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(formatter, "{key}={}", joined()),
            (Operator::NotIn, 1) => write!(formatter, "{key}!={}", joined()),
            (Operator::In, _) => write!(formatter, "{key} in ({})", joined()),
            (Operator::NotIn, _) => write!(formatter, "{key} notin ({})", joined()),
            (Operator::Exists, _) => write!(formatter, "{key}"),
            (Operator::DoesNotExist, _) => write!(formatter, "!{key}"),
            (Operator::GreaterThan, _) => write!(formatter, "{key}>{}", joined()),
            (Operator::LessThan, _) => write!(formatter, "{key}<{}", joined()),
        }
    }
}

/// A word of the grammar. `in` and `notin` are words only where an operator may stand.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Identifier(String),
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    DoesNotExist,
    GreaterThan,
    LessThan,
    Open,
    Close,
    Comma,
    /// Special characters that mean nothing together.
    Unknown(String),
    End,
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Identifier(text) | Self::Unknown(text) => text,
            Self::In => "in".into(),
            Self::NotIn => "notin".into(),
            Self::Equals => "=".into(),
            Self::DoubleEquals => "==".into(),
            Self::NotEquals => "!=".into(),
            Self::DoesNotExist => "!".into(),
            Self::GreaterThan => ">".into(),
            Self::LessThan => "<".into(),
            Self::Open => "(".into(),
            Self::Close => ")".into(),
            Self::Comma => ",".into(),
            Self::End => String::new(),
        }
    }
}

/// Whether a word is read as a key or operator, or as a value.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Context {
    Key,
    Value,
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if is_blank(character) {
            rest = &rest[character.len_utf8()..];
        } else if is_special(character) {
            let run = rest.find(|next| !is_special(next)).unwrap_or(rest.len());
            let (token, length) = operator(&rest[..run]);
            tokens.push(token);
            rest = &rest[length..];
        } else {
            let end = rest.find(|next| is_special(next) || is_blank(next)).unwrap_or(rest.len());
            tokens.push(match &rest[..end] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                word => Token::Identifier(word.into()),
            });
            rest = &rest[end..];
        }
    }
    tokens
}

/// The longest operator that a run of special characters begins with.
fn operator(run: &str) -> (Token, usize) {
    match run.as_bytes() {
        [b'=', b'=', ..] => (Token::DoubleEquals, 2),
        [b'!', b'=', ..] => (Token::NotEquals, 2),
        [b'=', ..] => (Token::Equals, 1),
        [b'!', ..] => (Token::DoesNotExist, 1),
        [b'(', ..] => (Token::Open, 1),
        [b')', ..] => (Token::Close, 1),
        [b',', ..] => (Token::Comma, 1),
        [b'>', ..] => (Token::GreaterThan, 1),
        [b'<', ..] => (Token::LessThan, 1),
        _ => (Token::Unknown(run.into()), run.len()),
    }
}

fn unexpected<T>(token: Token, expected: &'static str) -> Result<T, SelectorError> {
    Err(SelectorError::Unexpected { found: token.text(), expected })
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self, context: Context) -> Token {
        match (self.tokens.get(self.at), context) {
            (None, _) => Token::End,
            (Some(word @ (Token::In | Token::NotIn)), Context::Value) => Token::Identifier(word.clone().text()),
            (Some(token), _) => token.clone(),
        }
    }

    fn next(&mut self, context: Context) -> Token {
        let token = self.peek(context);
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek(Context::Key) == Token::DoesNotExist;
        if absent {
            self.at += 1;
        }
        let key = match self.next(Context::Value) {
            Token::Identifier(key) => key,
            other => return Err(requirement_error(other, "identifier")),
        };
        if absent {
            return Requirement::checked(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek(Context::Key), Token::End | Token::Comma) {
            return Requirement::checked(key, Operator::Exists, BTreeSet::new());
        }
        let operator = match self.next(Context::Key) {
            operator @ (Token::In | Token::NotIn) => {
                let values = self.values()?;
                let operator = if operator == Token::In { Operator::In } else { Operator::NotIn };
                return Requirement::checked(key, operator, values);
            }
            Token::Equals | Token::DoubleEquals => Operator::In,
            Token::NotEquals => Operator::NotIn,
            Token::GreaterThan => Operator::GreaterThan,
            Token::LessThan => Operator::LessThan,
            other => return Err(requirement_error(other, "in, notin, =, ==, !=, gt, lt")),
        };
        let value = match self.peek(Context::Value) {
            Token::End | Token::Comma => String::new(),
            Token::Identifier(value) => {
                self.at += 1;
                value
            }
            other => return Err(requirement_error(other, "identifier")),
        };
        Requirement::checked(key, operator, BTreeSet::from([value]))
    }

    /// `(a, b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next(Context::Value) {
            Token::Open => {}
            other => return Err(SelectorError::Requirement(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = BTreeSet::new();
        let mut after_value = false;
        loop {
            match self.next(Context::Value) {
                Token::Identifier(value) if !after_value => {
                    values.insert(value);
                    after_value = true;
                }
                token @ (Token::Comma | Token::Close) => {
                    if !after_value {
                        values.insert(String::new());
                    }
                    if token == Token::Close {
                        return Ok(values);
                    }
                    after_value = false;
                }
                other if after_value => {
                    return Err(SelectorError::Requirement(format!("found '{}', expected: ',' or ')'", other.text())));
                }
                other => {
                    return Err(SelectorError::Requirement(format!("found '{}', expected: ',', ')' or identifier", other.text())));
                }
            }
        }
    }
}

fn requirement_error(found: Token, expected: &str) -> SelectorError {
    SelectorError::Requirement(format!("found '{}', expected: {expected}", found.text()))
}

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

fn wrong_key(key: &str) -> Option<String> {
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

fn wrong_value(value: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        Selector::parse(text).expect_err(text).to_string()
    }

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        selector.matches(|key| labels.iter().find(|(label, _)| *label == key).map(|(_, value)| *value))
    }

    #[test]
    fn each_operator_means_what_kubernetes_means() {
        let labels = [("a", "1"), ("b", ""), ("n", "12")];
        for (selector, expected) in [
            ("", true),
            ("a", true),
            ("!a", false),
            ("!zz", true),
            ("a=1", true),
            ("a==1", true),
            ("a = 1 , n", true),
            ("a!=1", false),
            ("zz!=1", true),
            ("zz notin (1)", true),
            ("a in (0,1)", true),
            ("a notin (0,1)", false),
            ("b=", true),
            ("b in ()", true),
            ("b in (x,,y)", true),
            ("b in (x)", false),
            ("zz=", false),
            ("n>11", true),
            ("n > 12", false),
            ("n<13", true),
            ("in in (in)", false),
            ("a=in", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
        assert!(matches("metric.labels.name=pool", &[("metric.labels.name", "pool")]));
        assert!(matches("weir.internal/gpu in (h100)", &[("weir.internal/gpu", "h100")]));
    }

    #[test]
    fn errors_are_the_words_of_kubernetes() {
        for (selector, expected) in [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("=b", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ] {
            assert_eq!(error(selector), expected, "{selector}");
        }
        let value = error("a=vllm:foo");
        assert!(
            value.starts_with(
                "unable to parse requirement: values[0][a]: Invalid value: \"vllm:foo\": a valid label must be an empty string or \
                 consist of alphanumeric characters"
            ),
            "{value}"
        );
    }

    #[test]
    fn only_integers_are_ordered() {
        assert!(error("a<x").contains("the value must be an integer"), "{}", error("a<x"));
        assert!(!matches("n<13", &[("n", "twelve")]));
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        let long = "x".repeat(64);
        for selector in [
            "a=google/gemma",
            "a=-x",
            &format!("a={long}"),
            &long,
            "a:b=c",
            "/a",
            "A_/x",
            "a in (",
            "a in (b",
            "a in (b c)",
            ",",
            "!",
            "!=a",
            "a=b=c",
            "a,,b",
            "(",
            "a>",
            "a>1.5",
        ] {
            assert!(Selector::parse(selector).is_err(), "{selector}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_and_what_is_printed_reads_back(text in "[ -~]{0,60}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
            }
        }

        #[test]
        fn words_of_the_grammar_never_panic(words in proptest::collection::vec("(a|b|in|notin|=|==|!=|!|,|\\(|\\)|<|>|7| |x/y|é|\u{0})", 0..12)) {
            let text = words.concat();
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
