//! A number computed from an answer's count of tokens, for the gateway (`request-attribute-reporter`).

use std::collections::HashMap;
use std::sync::Arc;

use cel::{Context, Env, Program, Value};
pub use weir_ext_proc::Attribute;

use crate::Usage;

/// An expression has no more words and signs: each may cost stack, in compiling and in computing.
const MOST_TOKENS: usize = 64;
const COMPILER_STACK: usize = 64 << 20;
/// The variable that expressions read.
const VARIABLE: &str = "usage";

/// Computes one attribute by CEL.
///
/// The variable `usage` has the fields `prompt_tokens`, `completion_tokens`, `total_tokens` and
/// `prompt_token_details.cached_tokens`, all of them doubles as upstream's are: `usage.completion_tokens * 2.0`.
#[derive(Clone)]
pub struct AttributeReporter {
    namespace: Arc<str>,
    name: Arc<str>,
    /// The texts of both, and the programs.
    source: [Arc<str>; 2],
    expression: Arc<Program>,
    condition: Option<Arc<Program>>,
    environment: Arc<Env>,
}

impl std::fmt::Debug for AttributeReporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = format!("{}/{}", self.namespace, self.name);
        formatter.debug_struct("AttributeReporter").field("key", &key).field("source", &self.source).finish_non_exhaustive()
    }
}

impl PartialEq for AttributeReporter {
    fn eq(&self, other: &Self) -> bool {
        (&self.namespace, &self.name, &self.source) == (&other.namespace, &other.name, &other.source)
    }
}

impl Eq for AttributeReporter {}

impl AttributeReporter {
    /// Reports `expression` where `condition` holds; an empty one always does.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub fn new(namespace: &str, name: &str, expression: &str, condition: &str) -> Result<Self, String> {
        let environment = Arc::new(Env::stdlib());
        let program = |what, source: &str| {
            let tokens = tokens(source);
            if tokens > MOST_TOKENS {
                return Err(format!("the {what} has {tokens} words and signs: at most {MOST_TOKENS} are read"));
            }
            let program = compile(source).map_err(|error| format!("the {what} is no CEL: {error}"))?;
            if let Some(other) = program.references().variables().into_iter().find(|name| *name != VARIABLE) {
                return Err(format!("the {what} names `{other}`: there is only `{VARIABLE}`"));
            }
            Ok(Arc::new(program))
        };
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
            source: [expression.into(), condition.into()],
            condition: if condition.trim().is_empty() { None } else { Some(program("condition", condition)?) },
            expression: program("expression", expression)?,
            environment,
        })
    }

    /// The attribute of an answer with this usage, cut to a whole number; nothing where that is 0 or cannot be computed.
    pub fn report(&self, usage: Option<Usage>) -> Option<Attribute> {
        let usage = usage.unwrap_or_default();
        let mut context = Context::with_env(Arc::clone(&self.environment));
        let number = |tokens: u64| Value::Float(tokens as f64);
        let details = HashMap::from([("cached_tokens", number(usage.cached_tokens))]);
        context.add_variable_from_value(
            VARIABLE,
            HashMap::from([
                ("prompt_tokens", number(usage.prompt_tokens)),
                ("completion_tokens", number(usage.completion_tokens)),
                ("total_tokens", number(usage.prompt_tokens.saturating_add(usage.completion_tokens))),
                ("prompt_token_details", Value::Map(details.into())),
            ]),
        );
        if let Some(condition) = &self.condition
            && condition.execute(&context) != Ok(Value::Bool(true))
        {
            return None;
        }
        let value = match self.expression.execute(&context) {
            Ok(Value::Float(number)) if number.is_finite() => number as i64,
            Ok(Value::Int(number)) => number,
            _ => return None,
        };
        (value != 0).then(|| Attribute { namespace: Arc::clone(&self.namespace), name: Arc::clone(&self.name), value })
    }
}

/// Compiles with stack enough: the compiler takes more than 100 KiB for a bracket in a development build.
fn compile(source: &str) -> Result<Program, String> {
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(COMPILER_STACK);
        let compiling = compiler.spawn_scoped(scope, || Program::compile(source).map_err(|error| error.to_string()));
        let compiled = compiling.map_err(|error| format!("no thread to compile it: {error}"))?;
        compiled.join().unwrap_or_else(|_panic| Err("the compiler failed over it".into()))
    })
}

/// Words and signs, those within texts too.
fn tokens(source: &str) -> usize {
    let mut in_word = false;
    let begins = source.chars().filter(|character| {
        let word = character.is_alphanumeric() || *character == '_';
        let begins = !(character.is_whitespace() || word && in_word);
        in_word = word;
        begins
    });
    begins.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(expression: &str, condition: &str) -> Option<i64> {
        let reporter = AttributeReporter::new("envoy.lb", "cost", expression, condition).unwrap();
        let attribute = reporter.report(Some(Usage { prompt_tokens: 7, completion_tokens: 10, cached_tokens: 4 }))?;
        assert_eq!((&*attribute.namespace, &*attribute.name), ("envoy.lb", "cost"));
        Some(attribute.value)
    }

    #[test]
    fn numbers_are_cut_and_the_rest_is_nothing() {
        for (expression, condition, wanted) in [
            ("usage.completion_tokens", "has(usage.completion_tokens)", Some(10)),
            ("usage.completion_tokens * 2.0 + usage.prompt_tokens / 2.0", "", Some(23)),
            ("usage.total_tokens - usage.prompt_token_details.cached_tokens", "usage.prompt_tokens > 6.0", Some(13)),
            ("usage.prompt_tokens", "usage.prompt_tokens > 7.0", None),
            ("usage.prompt_tokens", "usage.absent", None),
            ("usage.prompt_tokens", "1.0", None),
            ("usage.prompt_tokens > 6.0 ? 42 : 0", "", Some(42)),
            ("-1.9", "", Some(-1)),
            ("0.9", "", None),
            ("usage.prompt_tokens - 7.0", "", None),
            ("1.0 / 0.0", "", None),
            ("1 / 0", "", None),
            ("usage.absent", "", None),
            ("\"text\"", "", None),
            ("true", "", None),
        ] {
            assert_eq!(report(expression, condition), wanted, "{expression} if {condition}");
        }
        let reporter = AttributeReporter::new("a", "b", "usage.completion_tokens", "").unwrap();
        assert_eq!(reporter.report(None), None);
    }

    #[test]
    fn what_is_no_expression_is_named() {
        let problem = |expression: &str, condition: &str| AttributeReporter::new("a", "b", expression, condition).unwrap_err();
        assert!(problem("usage.", "").starts_with("the expression is no CEL"));
        assert!(problem("1", "usage.prompt_tokens >").starts_with("the condition is no CEL"));
        assert_eq!(problem("request.size", ""), "the expression names `request`: there is only `usage`");
        assert!(problem(&"(".repeat(2000), "").contains("2000 words and signs: at most 64"));
        assert!(problem("", "").starts_with("the expression is no CEL"));
    }

    #[test]
    fn the_longest_expressions_have_stack_enough() {
        let fill = |part: &str, end: &str| part.repeat((MOST_TOKENS - tokens(end)) / tokens(part)) + end;
        for source in [
            format!("{}1{}", "(".repeat(31), ")".repeat(31)),
            format!("{}1{}", "[".repeat(31), "]".repeat(31)),
            format!("{}1{}", "{1:".repeat(15), "}".repeat(15)),
            fill("1+", "1"),
            fill("-", "1"),
            fill("!", "true"),
            fill("true||", "true"),
            fill("true?1:", "1"),
            fill("1<", "1"),
            fill("1 in ", "[1]"),
            fill("1 in [", "1"),
            fill("usage.", "usage"),
            fill("[1].map(x,", "1"),
            format!("{}1{}", "[1].map(x,".repeat(6), ")".repeat(6)),
        ] {
            let compiled = AttributeReporter::new("a", "b", &source, "");
            if let Ok(reporter) = &compiled {
                reporter.report(None);
            }
            assert!(compiled.is_ok() || compiled.unwrap_err().contains("is no CEL"), "{source}");
        }
    }
}
