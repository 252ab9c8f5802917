//! `pools.yaml`: whatever the text, pools within the limits or an error that says where; no panic, no long wait.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_collector::{PoolsFile, PoolsFileError};

/// Not there: files that the text names are looked for beside it.
const PATH: &str = "no-such-folder/pools.yaml";

fuzz_target!(|text: &[u8]| {
    match PoolsFile::parse(PATH, text.to_vec()) {
        Ok(parsed) => {
            let again = PoolsFile::parse(PATH, text.to_vec()).expect("what was good is good");
            assert_eq!(format!("{:?}", parsed.pools), format!("{:?}", again.pools));
            let mut ids: Vec<_> = parsed.pools.iter().map(|pool| &pool.spec.id).collect();
            let pools = ids.len();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), pools, "a pool is there twice: {ids:?}");
            assert!(parsed.pools.iter().map(|pool| pool.spec.endpoints.len()).sum::<usize>() <= 10_000);
        }
        Err(error) => {
            assert!(error.to_string().contains(PATH), "{error}");
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
