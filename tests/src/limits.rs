//! Limits of this process.

use std::process::Command;

/// Raises the limit on open files to what is allowed, for this process and those it starts: a thousand endpoints are a thousand
/// connections.
pub fn allow_many_files() {
    let hard = Command::new("sh").args(["-c", "ulimit -H -n"]).output();
    let hard = hard.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={hard}:{hard}")]).status();
    if !raised.is_ok_and(|status| status.success()) {
        eprintln!("the limit on open files could not be raised (prlimit of util-linux): it stays");
    }
}
