//! What `weir epp --help` prints, from the table of flags.

use super::table::{Effect, Flag, TABLE};

/// Whether a flag is of a section.
type IsOf = fn(Effect) -> bool;

const WIDTH: usize = 65;

/// The help.
pub(super) fn text() -> String {
    let head = "The endpoint picker of one InferencePool, with the command line of the Go picker (docs/epp.md)\n\n\
                Usage: weir epp [FLAGS], or under the name epp\n\n\
                -flag is --flag, and the spellings of v0.2 to v0.5 (poolName) are understood.\n";
    let sections: [(&str, IsOf); 5] = [
        ("Flags", |effect| effect == Effect::Heeded),
        ("weir's own", |effect| effect == Effect::Own),
        ("Taken, with nothing to do", |effect| effect == Effect::Needless),
        ("Taken without effect, which the log says", |effect| matches!(effect, Effect::Instead(..))),
        ("Taken with their default alone", |effect| matches!(effect, Effect::OnlyDefault(_))),
    ];
    let mut lines = vec![head.to_owned()];
    for (title, wanted) in sections {
        lines.push(format!("{title}:"));
        lines.extend(TABLE.iter().filter(|flag| wanted(flag.effect)).map(|flag| {
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
