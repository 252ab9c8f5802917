//! `pools.yaml`: whatever the text, pools within the limits or an error that says where; no panic, no long wait.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir_collector::{PoolsFile, PoolsFileError};

/// The parser has no public entry for text: the text goes through a file in memory.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    folder.join(format!("weir-fuzz-{}.yaml", std::process::id()))
});

fuzz_target!(|text: &[u8]| {
    std::fs::write(&*FILE, text).expect("the file can be written");
    match PoolsFile::load(&*FILE) {
        Ok(loaded) => {
            let again = PoolsFile::load(&*FILE).expect("what was good is good");
            assert_eq!(format!("{:?}", loaded.pools), format!("{:?}", again.pools));
            let mut ids: Vec<_> = loaded.pools.iter().map(|pool| &pool.spec.id).collect();
            let pools = ids.len();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), pools, "a pool is there twice: {ids:?}");
            assert!(loaded.pools.iter().map(|pool| pool.spec.endpoints.len()).sum::<usize>() <= 10_000);
        }
        Err(error) => {
            assert!(error.to_string().contains("weir-fuzz-"), "{error}");
            if let PoolsFileError::Invalid { problems, .. } = &error {
                assert!(!problems.is_empty());
                let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                for problem in problems {
                    assert!(!problem.message.is_empty());
                    // A carriage return alone ends a line too.
                    let lines = lines + text.iter().filter(|byte| **byte == b'\r').count() as u64;
                    assert!(problem.line <= lines + 1, "line {} of {lines}: {problem:?}", problem.line);
                }
            }
        }
    }
});
