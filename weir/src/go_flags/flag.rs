//! Flags as tables list them.

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// As v1.0 and later spell it; `poolName` for `pool-name` is understood everywhere.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What holds where it is not given.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    pub(crate) effect: Effect,
}

/// What values a flag takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Bool,
    /// 0 to 65535.
    Port,
    /// Ports with commas between; given again, more of them.
    Ports,
    /// Any text; given again, more of them.
    Texts,
    /// As Go writes them: `1m30s`, `1.5h`, `50ms`.
    Duration,
    /// A whole number.
    Number,
    Text,
}

impl Kind {
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "[=true|false]",
            Self::Port => " PORT",
            Self::Ports => " PORT,…",
            Self::Duration => " DURATION",
            Self::Number => " NUMBER",
            Self::Text | Self::Texts => " TEXT",
        }
    }
}

/// What weir does with a flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// What it says.
    Heeded,
    /// Nothing, and nothing is missing.
    Needless,
    /// Nothing, which is said in the log unless the value is the first: what weir does instead.
    Instead(&'static str, &'static str),
    /// Any other value than the default is refused: the way out.
    OnlyDefault(&'static str),
    /// weir's own.
    Own,
}

/// A flag of a table.
pub(crate) const fn flag(name: &'static str, kind: Kind, default: &'static str, effect: Effect, about: &'static str) -> Flag {
    Flag { name, kind, default, about, effect }
}

/// A program whose command line is read so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// The subcommand, and the name under which all of the command line is its own.
    pub(crate) name: &'static str,
    /// What its help begins with.
    pub(crate) head: &'static str,
    /// Every flag, in the order of the help.
    pub(crate) table: &'static [Flag],
    /// Spellings that are neither of today nor of old.
    pub(crate) other_spellings: &'static [(&'static str, &'static str)],
}

impl Program {
    /// The flag that `spelled` means, and whether as up to v0.5.
    pub(crate) fn flag(&self, spelled: &str) -> Option<(&'static Flag, bool)> {
        let other = self.other_spellings.iter().find(|(other, _)| *other == spelled).map(|(_, name)| *name);
        let (old, name) = (other.is_some(), other.unwrap_or(spelled));
        self.table.iter().find_map(|flag| match flag.name == name {
            true => Some((flag, old)),
            false => (flag.camel_case() == name).then_some((flag, true)),
        })
    }
}

impl Flag {
    /// As v0.2 to v0.5 spell it.
    pub(crate) fn camel_case(&self) -> String {
        let mut spelled = String::with_capacity(self.name.len());
        let mut capital = false;
        for letter in self.name.chars() {
            match letter {
                '-' => capital = true,
                letter => {
                    spelled.push(if capital { letter.to_ascii_uppercase() } else { letter });
                    capital = false;
                }
            }
        }
        spelled
    }
}
