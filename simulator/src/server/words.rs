//! Text for tokens nobody computed: about four characters each, so that an answer fed back as a prompt counts about the same.

const WORDS: [&str; 32] = [
    "the", "river", "runs", "over", "a", "low", "dam", "and", "holds", "its", "water", "so", "that", "mills", "below", "can",
    "turn", "at", "any", "hour", "of", "day", "it", "does", "not", "make", "more", "rain", "but", "evens", "flow", "out",
];

/// Appends the token at `position` of the answer numbered `answer`: the same for the same numbers.
pub(super) fn push_token(text: &mut String, answer: u64, position: u32) {
    if position > 0 {
        text.push(' ');
    }
    // SplitMix64's mixing: neighbours in, unrelated words out.
    let mut mixed = answer.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(position));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // The top five bits are an index below 32.
    text.push_str(WORDS[(mixed >> 59) as usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_repeatable_and_about_four_characters_a_token() {
        let answer = |number| {
            let mut text = String::new();
            (0..1000).for_each(|position| push_token(&mut text, number, position));
            text
        };
        assert_eq!(answer(1), answer(1));
        assert_ne!(answer(1), answer(2));
        assert!((3500..5000).contains(&answer(1).len()), "{}", answer(1).len());
        assert_eq!(answer(1).split(' ').count(), 1000);
    }
}
