//! What a pool asks of the computation of its required replicas, as its source of discovery says.

/// Bounds of [`RequiredOptions::utilisation`], in hundredths.
const UTILISATION: std::ops::RangeInclusive<u8> = 30..=100;
/// Most of [`RequiredOptions::spares`].
const MOST_SPARES: u32 = 1000;

/// Options of `inference_pool_required_replicas` for one pool; what is none is as for all pools. What each is worth and costs stands in
/// `docs/scaling.md`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct RequiredOptions {
    /// Whether pods are asked for ahead of the hours at which the days before needed them.
    pub daily: Option<bool>,
    /// Whether the level of bursts that come again and again is kept between them.
    pub recurring: Option<bool>,
    /// Replicas asked for on top while the pool is not at zero.
    pub spares: Option<u32>,
    /// Share of its capacity at which a replica is run, in hundredths.
    pub utilisation: Option<u8>,
}

impl RequiredOptions {
    /// The names of the options, as in files and, after `required-`, in annotations.
    pub const NAMES: [&'static str; 4] = ["daily", "recurring", "spares", "utilisation"];

    /// Sets the option `name`, one of [`Self::NAMES`], to what `text` says.
    ///
    /// # Errors
    /// What is wrong with `text` and what to write, in words that can follow the option's name.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "daily" => self.daily = Some(switch(text)?),
            "recurring" => self.recurring = Some(switch(text)?),
            "spares" => self.spares = Some(spares(text)?),
            "utilisation" => self.utilisation = Some(utilisation(text)?),
            _ => return Err(format!("is not known: there are {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    /// These, and where they say nothing those of `others`.
    pub fn or(self, others: Self) -> Self {
        Self {
            daily: self.daily.or(others.daily),
            recurring: self.recurring.or(others.recurring),
            spares: self.spares.or(others.spares),
            utilisation: self.utilisation.or(others.utilisation),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{}` is neither true nor false", shown(other))),
    }
}

fn spares(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MOST_SPARES);
    number.ok_or_else(|| format!("`{}` is no number of replicas: write 0 to {MOST_SPARES}", shown(text)))
}

fn utilisation(text: &str) -> Result<u8, String> {
    // The cast saturates, and what is not finite is out of bounds.
    let hundredths = text.parse::<f64>().ok().filter(|share| share.is_finite()).map(|share| (share * 100.0).round() as u8);
    let hundredths = hundredths.filter(|hundredths| UTILISATION.contains(hundredths));
    hundredths.ok_or_else(|| format!("`{}` is no share of a replica's capacity: write 0.3 to 1, as 0.75", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_within_their_bounds() {
        let mut options = RequiredOptions::default();
        for (name, text) in [("daily", "true"), ("recurring", "false"), ("spares", "3"), ("utilisation", "0.75")] {
            options.set(name, text).unwrap();
        }
        let all = RequiredOptions { daily: Some(true), recurring: Some(false), spares: Some(3), utilisation: Some(75) };
        assert_eq!(options, all);
        for (name, text, words) in [
            ("daily", "yes", "`yes` is neither true nor false"),
            ("spares", "-1", "write 0 to 1000"),
            ("spares", "1001", "write 0 to 1000"),
            ("utilisation", "0.2", "write 0.3 to 1"),
            ("utilisation", "75", "write 0.3 to 1"),
            ("utilisation", "NaN", "write 0.3 to 1"),
            ("utilisation", "\u{7}", "`\\u{7}` is no share"),
            ("weekly", "true", "there are daily, recurring, spares, utilisation"),
        ] {
            let error = options.set(name, text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(options, all);
    }

    #[test]
    fn a_pools_own_take_the_place_of_all_pools() {
        let all = RequiredOptions { spares: Some(1), utilisation: Some(80), ..RequiredOptions::default() };
        let own = RequiredOptions { spares: Some(0), daily: Some(true), ..RequiredOptions::default() };
        let both = own.or(all);
        assert_eq!(both, RequiredOptions { daily: Some(true), recurring: None, spares: Some(0), utilisation: Some(80) });
    }
}
