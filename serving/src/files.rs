//! Small files read with a bound, and noticed when their content changes.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::ServeError;

/// How one look at watched files ended, for the log and the `reloads` metric.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reload {
    /// New content is in use.
    Loaded {
        /// What the files are: `certificate`, `client_ca`, `tokens`.
        subject: &'static str,
    },
    /// New content is unusable; what was loaded before stays in use. Told once per distinct content or error.
    Refused {
        /// What the files are: `certificate`, `client_ca`, `tokens`.
        subject: &'static str,
        /// Which file, and what is wrong with it.
        error: ServeError,
    },
}

/// One file that belongs to a set: what it is for, where it is.
#[derive(Clone, Debug)]
pub(crate) struct FileRole {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
}

impl FileRole {
    pub(crate) fn new(what: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { what, path: path.into() }
    }

    /// An error that names this file.
    pub(crate) fn error(&self, problem: impl Into<String>) -> ServeError {
        ServeError::File { what: self.what, path: self.path.clone(), problem: problem.into(), source: None }
    }

    fn read(&self, limit: u64) -> Result<Vec<u8>, ServeError> {
        let io_error = |source: std::io::Error| ServeError::File {
            what: self.what,
            path: self.path.clone(),
            problem: source.to_string(),
            source: Some(source),
        };
        // Asked before opening: opening a pipe would wait for a writer.
        if !Path::new(&self.path).metadata().map_err(io_error)?.is_file() {
            return Err(self.error("is not a regular file"));
        }
        let mut content = Vec::new();
        File::open(&self.path).map_err(io_error)?.take(limit + 1).read_to_end(&mut content).map_err(io_error)?;
        if content.len() as u64 > limit {
            return Err(self.error(format!("is longer than {limit} bytes")));
        }
        Ok(content)
    }
}

/// Files that are only meaningful together (certificate and key), compared by content: a mounted secret is
/// replaced by a symbolic link, so neither path nor modification time can be relied on.
#[derive(Debug)]
pub(crate) struct WatchedFiles {
    roles: Vec<FileRole>,
    limit: u64,
    loaded: Vec<Vec<u8>>,
    refused: Option<Attempt>,
}

#[derive(Debug, PartialEq)]
enum Attempt {
    Content(Vec<Vec<u8>>),
    Unreadable(String),
}

/// What [`WatchedFiles::poll`] found.
#[derive(Debug)]
pub(crate) enum Change {
    /// As loaded, or as bad as at the last look.
    None,
    /// New content, to be accepted or refused by its reader.
    Content(Vec<Vec<u8>>),
    /// Newly unreadable.
    Unreadable(ServeError),
}

impl WatchedFiles {
    /// Reads the files for the first time; each may be `limit` bytes long.
    pub(crate) fn open(roles: Vec<FileRole>, limit: u64) -> Result<Self, ServeError> {
        let mut files = Self { roles, limit, loaded: Vec::new(), refused: None };
        files.loaded = files.read()?;
        Ok(files)
    }

    pub(crate) fn roles(&self) -> &[FileRole] {
        &self.roles
    }

    pub(crate) fn content(&self) -> &[Vec<u8>] {
        &self.loaded
    }

    fn read(&self) -> Result<Vec<Vec<u8>>, ServeError> {
        self.roles.iter().map(|role| role.read(self.limit)).collect()
    }

    /// Looks again.
    pub(crate) fn poll(&mut self) -> Change {
        match self.read() {
            Ok(content) if content == self.loaded => {
                self.refused = None;
                Change::None
            }
            Ok(content) => {
                let attempt = Attempt::Content(content.clone());
                if self.refused.as_ref() == Some(&attempt) {
                    return Change::None;
                }
                // Refused until its reader accepts it.
                self.refused = Some(attempt);
                Change::Content(content)
            }
            Err(error) => {
                let attempt = Attempt::Unreadable(error.to_string());
                if self.refused.as_ref() == Some(&attempt) {
                    return Change::None;
                }
                self.refused = Some(attempt);
                Change::Unreadable(error)
            }
        }
    }

    /// The reader of a change took it over.
    pub(crate) fn accept(&mut self, content: Vec<Vec<u8>>) {
        self.loaded = content;
        self.refused = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(path: &Path) -> WatchedFiles {
        WatchedFiles::open(vec![FileRole::new("token", path)], 16).unwrap()
    }

    #[test]
    fn a_change_is_told_once_until_it_is_accepted_or_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut files = watched(&path);
        assert!(matches!(files.poll(), Change::None));

        std::fs::write(&path, "two").unwrap();
        assert!(matches!(files.poll(), Change::Content(content) if content == [b"two".to_vec()]), "new content is told");
        assert!(matches!(files.poll(), Change::None), "the same refused content is told once");

        std::fs::write(&path, "one").unwrap();
        assert!(matches!(files.poll(), Change::None));
        std::fs::write(&path, "two").unwrap();
        let Change::Content(content) = files.poll() else {
            panic!("content that came back is told again");
        };
        files.accept(content);
        assert!(matches!(files.poll(), Change::None));
        assert_eq!(files.content(), [b"two".to_vec()]);
    }

    #[test]
    fn a_missing_file_is_told_once_and_its_return_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut files = watched(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(files.poll(), Change::Unreadable(_)));
        assert!(matches!(files.poll(), Change::None));
        std::fs::write(&path, "two").unwrap();
        assert!(matches!(files.poll(), Change::Content(_)));
    }

    #[test]
    fn errors_name_the_file_and_its_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let open = |path: &Path| WatchedFiles::open(vec![FileRole::new("token", path)], 16).unwrap_err().to_string();
        let missing = open(&path);
        assert!(missing.contains("token file") && missing.contains("No such file"), "{missing}");
        std::fs::write(&path, "x".repeat(17)).unwrap();
        assert!(open(&path).ends_with("file: is longer than 16 bytes"));
        assert!(open(folder.path()).ends_with("is not a regular file"));
    }
}
