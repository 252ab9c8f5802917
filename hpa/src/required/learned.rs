//! What is worth keeping over a restart: one small document, with its evidence.

use serde::{Deserialize, Serialize};

use super::constants::{COST_BOUNDS, DAYS, START_LONGEST};
use super::cost::Costs;
use super::daily::Day;

/// The version that is written and read.
pub const LEARNED_VERSION: u32 = 1;

/// Longest fingerprint.
const LONGEST_FINGERPRINT: usize = 128;
/// Most tokens in a request that are believed.
const MOST_TOKENS: f64 = 1e8;

/// What was learned about the replicas of one pool. A few kilobytes as JSON; the days are most of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Learned {
    /// [`LEARNED_VERSION`].
    pub version: u32,
    /// What it is true for: a hash of the image, its arguments and the kind of GPU.
    pub fingerprint: String,
    /// Seconds of one replica per prompt token; absent before the first busy replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_prompt_token: Option<f64>,
    /// Seconds of one replica per generated token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_generated_token: Option<f64>,
    /// How many samples taught these.
    pub samples: u64,
    /// Of how many busy replica-seconds.
    pub busy_seconds: f64,
    /// The highest rate a replica has done with nobody waiting: generated tokens a second, two prompt tokens counted as one.
    pub healthy_tokens_per_second: f64,
    /// Mean seconds from a pod's creation to its being ready; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<f64>,
    /// How many starts taught that.
    pub starts: u32,
    /// Mean tokens of a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<f64>,
    /// Mean tokens of an answer.
    pub output_tokens: f64,
    /// The last whole days.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
}

/// Why a document is not taken. What was learned before stays.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LearnedError {
    /// Written by another version.
    #[error("what was learned has version {0}, this is version {LEARNED_VERSION}: delete it, and it is learned anew")]
    Version(u32),
    /// Learned from other servers.
    #[error("what was learned is for {found}, the servers are {expected}: it is learned anew")]
    Fingerprint {
        /// What the document says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// A number that cannot be.
    #[error("what was learned has {field} = {value}, which must be {must}: delete it, and it is learned anew")]
    Value {
        /// The field as it is written.
        field: &'static str,
        /// What it says.
        value: f64,
        /// What it must be.
        must: &'static str,
    },
    /// One cost without the other.
    #[error(
        "what was learned has only one of secondsPerPromptToken and secondsPerGeneratedToken: delete it, and it is learned anew"
    )]
    OneCost,
    /// Days that cannot be.
    #[error("what was learned has {0} days or days of wrong length: at most 3 of 288 entries are kept")]
    Days(usize),
}

impl Learned {
    /// Checks that the document is for `fingerprint` and that its numbers can be.
    ///
    /// # Errors
    /// [`LearnedError`] naming the field.
    pub fn check(&self, fingerprint: &str) -> Result<(), LearnedError> {
        if self.version != LEARNED_VERSION {
            return Err(LearnedError::Version(self.version));
        }
        if self.fingerprint != fingerprint {
            let found = self.fingerprint.chars().take(LONGEST_FINGERPRINT).collect();
            return Err(LearnedError::Fingerprint { found, expected: fingerprint.to_owned() });
        }
        let within = |field, value: Option<f64>, least: f64, most: f64, must| match value {
            Some(value) if !(least..=most).contains(&value) => Err(LearnedError::Value { field, value, must }),
            _ => Ok(()),
        };
        let (cheapest, dearest) = COST_BOUNDS;
        within("secondsPerPromptToken", self.seconds_per_prompt_token, cheapest, dearest, "1e-7 to 10")?;
        within("secondsPerGeneratedToken", self.seconds_per_generated_token, cheapest, dearest, "1e-7 to 10")?;
        if self.seconds_per_prompt_token.is_some() != self.seconds_per_generated_token.is_some() {
            return Err(LearnedError::OneCost);
        }
        within("busySeconds", Some(self.busy_seconds), 0.0, f64::MAX, "0 or more")?;
        within("healthyTokensPerSecond", Some(self.healthy_tokens_per_second), 0.0, 1e9, "0 to 1e9")?;
        within("startSeconds", self.start_seconds, 0.0, START_LONGEST.as_secs_f64(), "0 to 3600")?;
        within("promptTokens", self.prompt_tokens, 0.0, MOST_TOKENS, "0 to 1e8")?;
        within("outputTokens", Some(self.output_tokens), 0.0, MOST_TOKENS, "0 to 1e8")?;
        let whole = self.days.iter().all(|day| day.tokens.len() == super::constants::DAY_BINS);
        if self.days.len() > DAYS || !whole {
            return Err(LearnedError::Days(self.days.len()));
        }
        Ok(())
    }

    /// The costs.
    pub fn costs(&self) -> Option<Costs> {
        let (prompt, token) = self.seconds_per_prompt_token.zip(self.seconds_per_generated_token)?;
        Some(Costs { prompt, token })
    }
}
