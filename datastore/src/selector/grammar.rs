//! The grammar: text to words, words to requirements.

use std::collections::BTreeSet;

use super::words::{wrong_key, wrong_value};
use super::{Operator, Requirement, SelectorError};

/// The requirements that `text` is made of.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
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
    Ok(requirements)
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
            return checked(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek(Context::Key), Token::End | Token::Comma) {
            return checked(key, Operator::Exists, BTreeSet::new());
        }
        let operator = match self.next(Context::Key) {
            operator @ (Token::In | Token::NotIn) => {
                let values = self.values()?;
                let operator = if operator == Token::In { Operator::In } else { Operator::NotIn };
                return checked(key, operator, values);
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
        checked(key, operator, BTreeSet::from([value]))
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

/// The requirement, if its key and values may be.
fn checked(key: String, operator: Operator, values: BTreeSet<String>) -> Result<Requirement, SelectorError> {
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
    Ok(Requirement { key, operator, values })
}
