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
    beginnings: Beginnings,
}

impl Wanted {
    /// A set of `names`; [`super::Sample::family`] is the position of the name here. A repeated name keeps its first position; a
    /// name that is empty or longer than 255 bytes is never found on a page.
    pub fn new<'name>(names: impl IntoIterator<Item = &'name str>) -> Self {
        let mut by_length = vec![Vec::new(); LONGEST_NAME + 1];
        for (name, index) in names.into_iter().zip(0..) {
            if let Some(same_length) = by_length.get_mut(name.len())
                && !name.is_empty()
                && !same_length.iter().any(|(known, _): &(Box<[u8]>, _)| **known == *name.as_bytes())
            {
                same_length.push((name.as_bytes().into(), index));
            }
        }
        let beginnings = Beginnings::of(by_length.iter().flatten().map(|(name, _)| &**name));
        Self { by_length, beginnings }
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<FamilyIndex> {
        let same_length = self.by_length.get(name.len())?;
        same_length.iter().find(|(known, _)| **known == *name).map(|(_, index)| *index)
    }

    /// Whether `line` may begin with one of the names: nearly all of a page's lines do not, and need not be looked at any further.
    pub(super) fn may_begin(&self, line: &[u8]) -> bool {
        self.beginnings.may_begin(line)
    }
}

/// Bytes of a name that are looked at.
const BEGINNING: usize = 16;

/// How the wanted names begin: a bit for each, by a hash. Two beginnings may share a bit, so a bit that is set means nothing yet.
#[derive(Clone, Debug)]
struct Beginnings {
    /// The bytes that all names have.
    mask: u128,
    bits: [u64; 32],
}

impl Beginnings {
    fn of<'name>(names: impl Iterator<Item = &'name [u8]> + Clone) -> Self {
        let length = names.clone().map(<[u8]>::len).min().unwrap_or(0).min(BEGINNING);
        let mask = (0..length).fold(0, |mask, byte| mask | 0xff << (8 * byte));
        let mut beginnings = Self { mask, bits: [0; 32] };
        for name in names {
            let (word, bit) = beginnings.place(name);
            beginnings.bits[word] |= 1 << bit;
        }
        beginnings
    }

    fn may_begin(&self, line: &[u8]) -> bool {
        let (word, bit) = self.place(line);
        self.bits[word] & (1 << bit) != 0
    }

    fn place(&self, text: &[u8]) -> (usize, u64) {
        let bytes = match text.first_chunk::<BEGINNING>() {
            Some(bytes) => *bytes,
            None => {
                let mut padded = [0; BEGINNING];
                padded[..text.len()].copy_from_slice(text);
                padded
            }
        };
        let beginning = u128::from_le_bytes(bytes) & self.mask;
        // The upper bits of a product depend on all of its factor's; odd numbers without a pattern.
        let halves =
            (beginning as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((beginning >> 64) as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let hash = halves.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
        ((hash >> 6) as usize, hash & 63)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_wanted_name_is_passed_over(names in proptest::collection::vec("[a-c_:]{0,20}", 0..6), rest in "[ {][a-z]{0,9}") {
            let wanted = Wanted::new(names.iter().map(String::as_str));
            for name in &names {
                if wanted.find(name.as_bytes()).is_some() {
                    let line = format!("{name}{rest}");
                    prop_assert!(wanted.may_begin(line.as_bytes()), "{}", line);
                }
            }
        }
    }

    #[test]
    fn most_others_are() {
        let wanted = Wanted::new(["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]);
        let others = (0..1000).filter(|number| wanted.may_begin(format!("vllm:{number}_bucket{{le=\"1\"}} 2").as_bytes())).count();
        assert!(others < 30, "{others} of 1,000");
    }
}
