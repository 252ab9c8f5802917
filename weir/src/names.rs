//! `weir names`: what rules for names of models come to.

use std::path::Path;

use weir_bbr::plugin::{BASE_MODEL_HEADER, MODEL_HEADER, PROVIDER_HEADER};
use weir_bbr::rules::Loaded;
use weir_bbr::table::Table;

use crate::args::{NamesArguments, NamesCommand};

/// Tells, and ends.
pub(crate) fn run(arguments: NamesArguments) -> anyhow::Result<()> {
    match arguments.what {
        NamesCommand::Test { models, file } => {
            let table = table(&file)?;
            for (position, model) in models.iter().enumerate() {
                if position > 0 {
                    println!();
                }
                print!("{}", told(&table, model));
            }
        }
        NamesCommand::Show { file } => println!("{:#}", table(&file)?.effective()),
    }
    Ok(())
}

fn table(file: &Path) -> anyhow::Result<Table> {
    Ok(Table::new(&Loaded::read(file)?, &[]))
}

/// Each step, then what comes of it.
fn told(table: &Table, model: &str) -> String {
    let mut lines = vec![model.escape_debug().to_string()];
    let names = table.names.clone().unwrap_or_default();
    let effective = names.resolve(model);
    lines.extend(effective.steps.iter().map(|step| format!("  {step}")));
    if effective.steps.is_empty() {
        let why = if names.knows(&effective.name) { "is known, and stays" } else { "no rule has anything to do" };
        lines.push(format!("  {why}"));
    }
    lines.push(format!("effective name: {}", effective.name));
    if !names.knows(&effective.name) && names.knows_any() {
        let near = names.near(&effective.name);
        let near = if near.is_empty() { String::new() } else { format!(", but like {}", near.join(", ")) };
        lines.push(format!("  (no known model{near})"));
    }
    lines.push(format!("{MODEL_HEADER}: {}", effective.name));
    if let Some(provider) = effective.provider {
        lines.push(format!("{PROVIDER_HEADER}: {provider}"));
    }
    if let Some(base) = table.mappings.base_of(&effective.name) {
        lines.push(format!("{BASE_MODEL_HEADER}: {base}"));
    }
    let rewritten = names.rewrite_body && *effective.name != *model;
    lines.push(format!("body: {}", if rewritten { "names the effective name" } else { "as it is" }));
    lines.push(String::new());
    lines.join("\n")
}
