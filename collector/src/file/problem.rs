//! What is wrong with a file, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Problems of one file that are told; the rest is counted.
const MOST_TOLD: usize = 50;

/// Why a pools file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolsFileError {
    /// It cannot be read: to be put there, or made readable.
    #[error("{}: cannot be read: {source}: is the path right, and may weir read it?", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any list of pools: probably another file.
    #[error("{}: larger than {limit} bytes: is this a list of pools? split what is into several weirs", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Its content is wrong: to be edited.
    #[error("{}", told(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, by line.
        problems: Vec<Problem>,
    },
}

impl PoolsFileError {
    /// Whether the same content may be good later, since what is wrong is another file.
    pub(super) fn may_heal(&self) -> bool {
        matches!(self, Self::Invalid { problems, .. } if problems.iter().any(|problem| problem.outside))
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Line, counted from 1.
    pub line: u64,
    /// Column in characters, counted from 1.
    pub column: u64,
    /// The field, as `pools[0].endpoints[1].address`; empty where the text is not YAML.
    pub field: String,
    /// What is wrong and the way out.
    pub message: String,
    /// Wrong is another file, which this one names.
    pub(super) outside: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}

fn told(path: &std::path::Path, problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(MOST_TOLD).map(|problem| format!("{}:{problem}", path.display())).collect();
    if problems.len() > MOST_TOLD {
        lines.push(format!("{}: and {} more", path.display(), problems.len() - MOST_TOLD));
    }
    lines.join("\n")
}
