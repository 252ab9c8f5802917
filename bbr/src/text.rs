//! Texts made comparable across ways of writing them.

use icu_normalizer::ComposingNormalizerBorrowed;

/// A text in which composed and decomposed letters, full-width and ordinary ones, capitals and small ones are the same: Unicode's
/// compatibility form (NFKC), each letter as the small form of its capital, so that `ß` is `ss` and every sigma is one.
pub(crate) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let capital = |letter: char| letter.to_uppercase().flat_map(char::to_lowercase);
    let folded: String = nfkc.normalize(text).chars().flat_map(capital).collect();
    // Small letters of a capital may compose with what stands beside them.
    nfkc.normalize(&folded).into_owned()
}

/// Whether words are written without spaces in the script of this letter: those of East and South-East Asia.
pub(crate) fn runs_on(letter: char) -> bool {
    matches!(letter as u32, 0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x2E80..=0xD7FF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}

/// Why a text cannot be the value of a header, if so.
pub(crate) fn no_header_value(text: &str) -> Option<String> {
    if text.len() > MOST_VALUE {
        return Some(format!("is {} bytes long: at most {MOST_VALUE} go into a header", text.len()));
    }
    let control = text.chars().find(|letter| letter.is_control())?;
    Some(format!("has the control character U+{:04X}, which no header may carry", control as u32))
}

/// A value of a header that weir sets may be this long; gateways allow about 60 KiB for a whole head.
pub(crate) const MOST_VALUE: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ways_of_writing_are_the_same() {
        for (one, other) in [
            ("Refactor", "refactor"),
            ("ＲＥＦＡＣＴＯＲ", "refactor"),
            ("ΣΧΕΔΙΑΣΜΌΣ", "σχεδιασμός"),
            ("STRASSE", "straße"),
            ("ENTWURF PRÜFEN", "entwurf pru\u{308}fen"),
            ("ПЕРЕПИСАТЬ", "переписать"),
            ("İSTANBUL", "i\u{307}stanbul"),
        ] {
            assert_eq!(folded(one), folded(other), "{one}");
        }
        assert_ne!(folded("重构"), folded("设计"));
    }

    proptest! {
        #[test]
        fn folding_again_changes_nothing(text in any::<String>()) {
            let once = folded(&text);
            prop_assert_eq!(folded(&once), once);
        }
    }
}
