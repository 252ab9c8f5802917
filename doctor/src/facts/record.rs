//! Facts as one file: written by `--record`, read by `--from`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Facts;

/// The form of the file that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Largest file that is read, in bytes.
pub const LARGEST: u64 = 64 << 20;

/// Why a recorded file cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It cannot be opened, read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// It is larger than any record.
    #[error("larger than {} MiB: no record of weir doctor", LARGEST >> 20)]
    TooLarge,
    /// It is no YAML or JSON, or not of this form.
    #[error("no record of weir doctor: {0}")]
    Form(String),
    /// It does not say which form it has.
    #[error("no `version`: no record of weir doctor; one is written by `weir doctor --record FILE`")]
    NoVersion,
    /// A newer weir wrote it.
    #[error("of form {0}, and this weir reads up to {FORMAT}: read it with the weir that wrote it, or a newer one")]
    Newer(u32),
}

impl Facts {
    /// Reads facts off YAML or JSON.
    ///
    /// # Errors
    /// [`RecordError`], with line and column where the text is at fault.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let facts: Self =
            serde_saphyr::from_str(text).map_err(|error| RecordError::Form(super::scrub::text(&error.to_string())))?;
        match facts.version {
            None => Err(RecordError::NoVersion),
            Some(newer) if newer > FORMAT => Err(RecordError::Newer(newer)),
            Some(_) => Ok(facts),
        }
    }

    /// Reads facts off a file.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let file_error = |reason| RecordError::File { path: path.to_owned(), reason };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(file_error)?;
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(file_error)?;
        if text.len() as u64 > LARGEST {
            return Err(RecordError::TooLarge);
        }
        Self::parse(&text)
    }

    /// Writes facts to a file, as JSON, which is YAML too.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let file_error = |reason| RecordError::File { path: path.to_owned(), reason };
        let mut text = serde_json::to_string_pretty(self).map_err(|error| file_error(error.into()))?;
        text.push('\n');
        std::fs::write(path, text).map_err(file_error)
    }
}
