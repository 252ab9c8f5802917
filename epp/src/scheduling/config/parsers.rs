//! `parser` and `requestHandler`: which paths are read.

use super::Reader;
use super::table::Part;
use super::yaml::{Fields, Value};
use crate::request::{Parser, Parsers};

impl Reader {
    /// `parser` as in v1.5, `requestHandler.parsers` since.
    pub(super) fn parsers(&mut self, fields: &Fields<'_>) -> Parsers {
        let single = fields.get("parser");
        let chosen = single.as_ref().and_then(|value| self.parser(value));
        let Some(handler) = fields.get("requestHandler") else {
            return match chosen {
                None | Some(Parser::OpenAi) => Parsers::default(),
                Some(parser) => Parsers::of([parser]),
            };
        };
        if single.is_some() {
            self.reading.refuse(&handler, "`parser` says which parser already: remove one of the two");
        }
        let parsers = self.reading.fields(&handler, "`parsers`", &["parsers"]).and_then(|fields| fields.get("parsers"));
        let mut list = Vec::new();
        for value in parsers.map(|value| self.reading.list(&value, "a list of `pluginRef`")).unwrap_or_default() {
            if list.contains(&Parser::Passthrough) {
                self.reading.refuse(&value, "is never reached: the `passthrough-parser` before it takes every path; put that last");
            }
            list.extend(self.parser(&value));
        }
        if list.is_empty() { Parsers::default() } else { Parsers::of(list) }
    }

    /// The parser that a `pluginRef` names: one of the list, or a type of parser that is not in it.
    fn parser(&mut self, value: &Value<'_>) -> Option<Parser> {
        let fields = self.reading.fields(value, "`pluginRef`", &["pluginRef"])?;
        let name = fields.get("pluginRef").and_then(|value| self.reading.text(&value, "the name of a parser"));
        let declared = |name: &str| self.plugins.iter().any(|plugin| *plugin.name.name == *name);
        let by_type = |name: &str| Parser::ALL.into_iter().find(|parser| parser.kind() == name);
        if let Some(parser) = name.filter(|name| !declared(name)).and_then(by_type) {
            return Some(parser);
        }
        let plugin = self.referenced(&fields)?;
        if let Part::Parser(parser) = plugin.part {
            return Some(parser);
        }
        let kinds = Parser::ALL.map(Parser::kind).join(", ");
        self.reading.refuse(value, format!("`{}` is no parser: name one of {kinds}", plugin.name.name));
        None
    }
}
