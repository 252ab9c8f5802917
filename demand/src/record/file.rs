//! The file of a recording: begun, or gone on with; only whole lines.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use weir_datastore::PoolId;

use super::lines::Lines;

/// How every recording begins.
const MARK: &str = "# weir trace of pool ";
/// Longest first line.
const LONGEST_HEAD: u64 = 1024;

/// A recording's file.
#[derive(Debug)]
pub(super) struct TraceFile {
    file: File,
    /// Its length up to the last whole line.
    length: u64,
}

/// What is in a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Opened {
    /// When the recording began, since the Unix epoch.
    pub(super) began: Duration,
    /// Its requests.
    pub(super) requests: u64,
    /// When the last of them arrived, in seconds since it began.
    pub(super) last: f64,
}

impl TraceFile {
    /// Begins a recording of `pool` at `now`, or goes on with the one that is there.
    ///
    /// # Errors
    /// When the file cannot be read and written, or holds something else: it is left as it is then.
    pub(super) fn open(path: &Path, pool: &PoolId, now: Duration) -> std::io::Result<(Self, Opened)> {
        if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            return Err(Error::other("is not a file"));
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() == 0 {
            let mut fresh = Self { file, length: 0 };
            fresh.append(&Lines::head(&format!("{MARK}{pool}, seconds since {:.3} (Unix)", now.as_secs_f64())))?;
            return Ok((fresh, Opened { began: now, requests: 0, last: 0.0 }));
        }
        let (opened, length) = goes_on(&mut file, pool)?;
        if now < opened.began {
            return Err(Error::other("holds a recording that began later than now, by this machine's clock: name another file"));
        }
        let mut trace = Self { file, length };
        trace.cut()?;
        Ok((trace, opened))
    }

    /// Appends whole lines, all of them or none.
    ///
    /// # Errors
    /// When they cannot be written: what was written of them is taken back.
    pub(super) fn append(&mut self, text: &str) -> std::io::Result<()> {
        match self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush()) {
            Ok(()) => {
                self.length += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.cut()?;
                Err(error)
            }
        }
    }

    /// Removes what comes after the last whole line.
    fn cut(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }
}

/// Reads what is there: when it began, how many requests it has, and where its last whole line ends.
fn goes_on(file: &mut File, pool: &PoolId) -> std::io::Result<(Opened, u64)> {
    let foreign = |what: &str| Error::new(ErrorKind::AlreadyExists, format!("{what}: it is left as it is, name another file"));
    let mut reader = BufReader::new(file);
    let mut head = Vec::new();
    (&mut reader).take(LONGEST_HEAD).read_until(b'\n', &mut head)?;
    let head = String::from_utf8_lossy(&head);
    let began = head.strip_suffix('\n').and_then(|head| head.strip_prefix(MARK));
    let Some((of, since)) = began.and_then(|head| head.split_once(", seconds since ")) else {
        return Err(foreign("holds something else than a recording of weir's"));
    };
    if of != pool.to_string() {
        return Err(foreign(&format!("holds a recording of pool {of}")));
    }
    let since = since.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    let Some(began) = since.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return Err(foreign("its first line does not say when it began"));
    };
    let (mut length, mut requests, mut last) = (head.len() as u64, 0, 0.0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LONGEST_HEAD).read_until(b'\n', &mut line)? as u64;
        match (read, line.last()) {
            (0, _) => break,
            (LONGEST_HEAD, last) if last != Some(&b'\n') => return Err(foreign("has a line that is none of a recording's")),
            (_, Some(b'\n')) => length += read,
            // The end of a process that was killed.
            _ => break,
        }
        if line.first().is_some_and(u8::is_ascii_digit) {
            requests += 1;
            let at = line.split(|byte| *byte == b',').next().and_then(|at| std::str::from_utf8(at).ok()?.parse().ok());
            last = at.filter(|at: &f64| at.is_finite()).unwrap_or(last);
        }
    }
    Ok((Opened { began, requests, last }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(std::path::PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("weir-record-{}-{name}.csv", std::process::id())))
        }

        fn text(&self) -> String {
            std::fs::read_to_string(&self.0).unwrap()
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    fn pool() -> PoolId {
        PoolId::new("default", "p")
    }

    const NOW: Duration = Duration::from_millis(1_795_000_000_250);

    #[test]
    fn a_recording_goes_on_where_it_was_cut_off() {
        let place = Temporary::new("on");
        let (mut file, opened) = TraceFile::open(&place.0, &pool(), NOW).unwrap();
        assert_eq!(opened, Opened { began: NOW, requests: 0, last: 0.0 });
        file.append("0.5,1,1\n# 1: x\n1.5,1,1\n").unwrap();
        let whole = place.text();
        assert!(
            whole.starts_with("# weir trace of pool default/p, seconds since 1795000000.250 (Unix)\nseconds,prompt"),
            "{whole}"
        );
        // The end of a line was lost.
        std::fs::write(&place.0, format!("{whole}2.5,1")).unwrap();
        let (mut file, opened) = TraceFile::open(&place.0, &pool(), NOW + Duration::from_secs(9)).unwrap();
        assert_eq!(opened, Opened { began: NOW, requests: 2, last: 1.5 });
        file.append("9.5,1,1\n").unwrap();
        assert_eq!(place.text(), format!("{whole}9.5,1,1\n"));
    }

    #[test]
    fn what_is_no_recording_of_this_pool_is_left_alone() {
        let place = Temporary::new("foreign");
        for (content, words) in [
            ("mine\n", "something else"),
            ("# weir trace of pool a/b, seconds since 1 (Unix)\n", "recording of pool a/b"),
            ("# weir trace of pool default/p, seconds since NaN (Unix)\n", "when it began"),
            ("# weir trace of pool default/p, seconds since 9999999999 (Unix)\n", "later than now"),
            (&*format!("# weir trace of pool default/p, seconds since 1 (Unix)\n{}", "9".repeat(5000)), "a line that is none"),
        ] {
            std::fs::write(&place.0, content).unwrap();
            let error = TraceFile::open(&place.0, &pool(), NOW).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(place.text(), content);
        }
        let folder = TraceFile::open(&std::env::temp_dir(), &pool(), NOW).unwrap_err();
        assert_eq!(folder.to_string(), "is not a file");
    }
}
