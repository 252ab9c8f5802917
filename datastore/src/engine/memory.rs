//! What is remembered of a server's earlier pages.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::families::{Engine, FamilySpec, Signal};
use crate::page::Sample;

/// Processes remembered per server; a page with more is not one of a server that restarts workers now and then.
const MOST_PROCESSES: usize = 64;

/// Remembers which processes of a server still update their series.
///
/// trtllm-serve labels each gauge with the process that wrote it and keeps the series of a worker that died: its last numbers stay on
/// the page for ever. The living one is the one whose numbers changed last; before anything changed, the one with the highest id,
/// which is the youngest as long as ids count up.
#[derive(Clone, Debug, Default)]
pub struct PageMemory {
    pages: u64,
    processes: Vec<Process>,
}

#[derive(Clone, Debug)]
struct Process {
    id: u64,
    values: u64,
    changed_on_page: u64,
}

impl PageMemory {
    /// The process whose series count on this page; none where the engine's series have none.
    pub(super) fn live_process(&mut self, engine: Engine, samples: &[(&Sample<'_>, &FamilySpec)]) -> Option<u64> {
        if engine != Engine::TrtllmServe {
            return None;
        }
        self.pages += 1;
        let mut on_page: Vec<(u64, DefaultHasher)> = Vec::new();
        for (sample, spec) in samples.iter().filter(|(_, spec)| Signal::LOAD.contains(&spec.signal)) {
            let Some(id) = process(sample) else { continue };
            let known = on_page.iter().position(|(known, _)| *known == id);
            let position = known.unwrap_or_else(|| {
                on_page.push((id, DefaultHasher::new()));
                on_page.len() - 1
            });
            (spec.signal, sample.value.to_bits()).hash(&mut on_page[position].1);
            if on_page.len() > MOST_PROCESSES {
                break;
            }
        }
        self.processes.retain(|process| on_page.iter().any(|(id, _)| *id == process.id));
        for (id, values) in on_page {
            let values = values.finish();
            match self.processes.iter_mut().find(|process| process.id == id) {
                None => self.processes.push(Process { id, values, changed_on_page: if self.pages == 1 { 0 } else { self.pages } }),
                Some(process) if process.values != values => {
                    process.values = values;
                    process.changed_on_page = self.pages;
                }
                Some(_) => {}
            }
        }
        self.processes.iter().max_by_key(|process| (process.changed_on_page, process.id)).map(|process| process.id)
    }
}

/// The process that wrote a series.
pub(super) fn process(sample: &Sample<'_>) -> Option<u64> {
    sample.labels.get("pid")?.parse().ok()
}
