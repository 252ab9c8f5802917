//! The metric names somebody wants, looked up once per line.

/// Position of a name in the list that [`Wanted`] was made from.
pub type FamilyIndex = u16;

/// The longest metric name that can be wanted, in bytes.
const LONGEST_NAME: usize = 255;

/// A set of metric names, matched whole: `num_requests_waiting` never matches `num_requests_waiting_by_reason`.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names by their length: a line's name is compared with the one to three names of its own length.
    by_length: Vec<Vec<(Box<[u8]>, FamilyIndex)>>,
}

impl Wanted {
    /// A set of `names`; [`super::Sample::family`] is the position of the name here. A repeated name keeps its first position; a
    /// name that is empty or longer than 255 bytes is never found on a page.
    pub fn new<'name>(names: impl IntoIterator<Item = &'name str>) -> Self {
        let mut by_length = vec![Vec::new(); LONGEST_NAME + 1];
        for (name, index) in names.into_iter().zip(0..) {
            if let Some(same_length) = by_length.get_mut(name.len())
                && !same_length.iter().any(|(known, _): &(Box<[u8]>, _)| **known == *name.as_bytes())
            {
                same_length.push((name.as_bytes().into(), index));
            }
        }
        Self { by_length }
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<FamilyIndex> {
        let same_length = self.by_length.get(name.len())?;
        same_length.iter().find(|(known, _)| **known == *name).map(|(_, index)| *index)
    }
}
