//! Failures that last: one line when they begin or change, one when they end.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
};

/// The state of something that can fail for a long time.
#[derive(Debug)]
pub struct Complaint {
    subject: &'static str,
    current: Mutex<Option<String>>,
}

impl Complaint {
    /// Nothing to complain of yet; `subject` names in the log what it is about.
    pub fn about(subject: &'static str) -> Self {
        Self { subject, current: Mutex::new(None) }
    }

    /// It failed. Logged as an error unless the last failure was the same.
    pub fn failed(&self, error: &dyn Display) {
        self.told(None, error);
    }

    /// The same, by the name that the cause has in docs/troubleshooting.md.
    pub fn failed_of(&self, code: &'static str, error: &dyn Display) {
        self.told(Some(code), error);
    }

    fn told(&self, code: Option<&'static str>, error: &dyn Display) {
        let error = error.to_string();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(&error) {
            tracing::error!(subject = self.subject, code, %error, "failing");
            *current = Some(error);
        }
    }

    /// It works. Logged when it did not.
    pub fn works(&self) {
        let ended = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        if ended.is_some() {
            tracing::info!(subject = self.subject, "working again");
        }
    }

    /// What it fails of now.
    pub fn current(&self) -> Option<String> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_stands_until_it_works() {
        let complaint = Complaint::about("test");
        assert_eq!(complaint.current(), None);
        complaint.failed(&"one");
        complaint.failed(&"two");
        assert_eq!(complaint.current().as_deref(), Some("two"));
        complaint.works();
        assert_eq!(complaint.current(), None);
    }
}
