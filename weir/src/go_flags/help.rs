//! What `--help` prints, from the table of flags.

use super::{Effect, Flag, Program};

/// Whether a flag is of a section.
type IsOf = fn(Effect) -> bool;

const WIDTH: usize = 65;

impl Program {
    /// The help.
    pub(crate) fn help(&self) -> String {
        text(self)
    }
}

fn text(program: &Program) -> String {
    let sections: [(&str, IsOf); 5] = [
        ("Flags", |effect| effect == Effect::Heeded),
        ("weir's own", |effect| effect == Effect::Own),
        ("Taken, with nothing to do", |effect| effect == Effect::Needless),
        ("Taken without effect, which the log says", |effect| matches!(effect, Effect::Instead(..))),
        ("Taken with their default alone", |effect| matches!(effect, Effect::OnlyDefault(_))),
    ];
    let mut lines = vec![program.head.to_owned()];
    for (title, wanted) in sections {
        lines.push(format!("{title}:"));
        lines.extend(program.table.iter().filter(|flag| wanted(flag.effect)).map(|flag| {
            let name = format!("  --{}{}", flag.name, flag.kind.placeholder());
            format!("{name:<WIDTH$}  {}", about(flag)).trim_end().to_owned()
        }));
        lines.push(String::new());
    }
    lines.join("\n")
}

fn about(flag: &Flag) -> String {
    let what = match flag.effect {
        Effect::Instead(_, instead) => instead,
        Effect::OnlyDefault(way_out) => way_out,
        Effect::Heeded | Effect::Needless | Effect::Own => flag.about,
    };
    match (what, flag.default) {
        (what, "") => what.to_owned(),
        ("", default) => format!("[{default}]"),
        (what, default) => format!("{what} [{default}]"),
    }
}
