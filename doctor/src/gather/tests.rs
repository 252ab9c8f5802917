//! Gathering off an API server of the test.
