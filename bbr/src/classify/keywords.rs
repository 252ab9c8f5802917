//! Words in a text, whatever its language, its capitals and its way of writing accents.

use aho_corasick::{AhoCorasick, BuildError, Input};

use crate::text::{folded, runs_on};

/// Words to look for.
#[derive(Clone, Debug)]
pub(super) struct Keywords {
    words: Vec<String>,
    search: AhoCorasick,
}

impl Keywords {
    /// These words, each once.
    pub(super) fn new(words: impl IntoIterator<Item = String>) -> Result<Self, BuildError> {
        let mut known: Vec<String> = Vec::new();
        let mut all: Vec<String> = Vec::new();
        for word in words {
            let word = word.trim();
            let form = folded(word);
            if !form.is_empty() && !known.contains(&form) {
                known.push(form);
                all.push(word.to_owned());
            }
        }
        Ok(Self { search: AhoCorasick::new(&known)?, words: all })
    }

    /// The first of them in `text`. It must begin where a word begins and may go on (`design` is in `designing`, not in `redesign`);
    /// in scripts without spaces between words it may begin anywhere.
    pub(super) fn first_in(&self, text: &str) -> Option<&str> {
        let text = folded(text);
        let mut from = 0;
        while let Some(found) = self.search.find(Input::new(&text).range(from..)) {
            let before = text[..found.start()].chars().next_back();
            let first = text[found.start()..].chars().next();
            let joined = |before: char| before.is_alphanumeric() && !runs_on(before) && !first.is_some_and(runs_on);
            if !before.is_some_and(joined) {
                return self.words.get(found.pattern().as_usize()).map(String::as_str);
            }
            // Another word may begin within this one.
            from = found.start() + first.map_or(1, char::len_utf8);
        }
        None
    }

    /// All of them.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[&str]) -> Keywords {
        Keywords::new(words.iter().map(ToString::to_string)).unwrap()
    }

    #[test]
    fn a_word_is_found_where_a_word_begins() {
        let english = words(&["design", "code review", "refactor"]);
        for (text, wanted) in [
            ("Please DESIGN it", Some("design")),
            ("designing", Some("design")),
            ("redesign", None),
            ("redesign, then design", Some("design")),
            ("a code review", Some("code review")),
            ("my_refactor()", Some("refactor")),
            ("ＲＥＦＡＣＴＯＲ", Some("refactor")),
            ("2design", None),
            ("", None),
        ] {
            assert_eq!(english.first_in(text), wanted, "{text}");
        }
    }

    #[test]
    fn other_languages_are_found_as_well() {
        let many = words(&["überprüfen", "réviser", "重构", "оптимизировать", "ออกแบบ", "설계", "डिज़ाइन", "σχεδιασμός"]);
        for (text, wanted) in [
            ("Bitte U\u{308}BERPRU\u{308}FEN", Some("überprüfen")),
            ("il faut RE\u{301}VISER", Some("réviser")),
            ("请帮我重构这段代码", Some("重构")),
            ("ОПТИМИЗИРОВАТЬ запрос", Some("оптимизировать")),
            ("ช่วยออกแบบระบบ", Some("ออกแบบ")),
            ("시스템설계를 해줘", Some("설계")),
            ("इसे डिज़ाइन करो", Some("डिज़ाइन")),
            ("Ο ΣΧΕΔΙΑΣΜΌΣ", Some("σχεδιασμός")),
            ("nichts davon", None),
        ] {
            assert_eq!(many.first_in(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_word_counts_once_and_an_empty_one_not_at_all() {
        assert_eq!(words(&["Debug", " debug ", "", "DEBUG"]).words(), ["Debug"]);
        assert_eq!(words(&[]).first_in("anything"), None);
    }

    proptest! {
        #[test]
        fn a_word_that_stands_alone_is_always_found(before in any::<String>(), word in any::<String>(), after in any::<String>()) {
            let keywords = words(&[&word]);
            let text = format!("{before} \n{word}\n{after}");
            if let [word] = keywords.words() {
                // Joined letters may compose into others; a space keeps them apart unless the word begins with a mark that takes it.
                if word.chars().next().is_some_and(char::is_alphanumeric) && word.is_ascii() {
                    prop_assert!(keywords.first_in(&text).is_some());
                }
            }
            prop_assert!(keywords.first_in(&before).is_none_or(|found| found == word.trim()));
        }
    }
}
