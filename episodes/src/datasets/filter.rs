//! Which samples are good enough, and a count of those that are not, by rule.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};

use recast_config::DatasetSettings;
use recast_domain::Split;
use serde::Serialize;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::sample::Sample;

/// Why a sample is in no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// There is no query.
    QueryMissing,
    /// There is no rewrite.
    RewriteMissing,
    /// The query has too few characters.
    QueryTooShort,
    /// The query has too many characters.
    QueryTooLong,
    /// The rewrite has too few characters.
    RewriteTooShort,
    /// The rewrite has too many characters.
    RewriteTooLong,
    /// Query and rewrite are the same.
    Unchanged,
    /// The rewrite is too long beside its query.
    RewriteGrewTooMuch,
    /// The two rewriters did not both answer.
    NoPair,
    /// The same texts are in the same split already.
    Duplicate,
    /// The same texts are in another split already, by another conversation.
    DuplicateOfOtherSplit,
    /// The batch run had no answer, or found nothing.
    NotSuccessful,
    /// The first hit scored too low.
    ScoreTooLow,
    /// Something is wrong with the row of the workbook.
    Faulty,
    /// The episode cannot be read.
    Unreadable,
}

/// Which texts must be good, and which make a sample a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A query with its rewrite.
    Rewrites,
    /// A query that both rewriters answered.
    Pairs,
    /// A query.
    Prompts,
}

/// Samples read, kept and dropped. `kept` and the drops add up to `read`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Episodes looked at.
    pub read: u64,
    /// Samples kept, copies with synonyms not counted.
    pub kept: u64,
    /// Samples dropped, by rule.
    pub dropped: BTreeMap<Rule, u64>,
}

impl Counts {
    /// Counts a sample that was read.
    pub fn count(&mut self, outcome: Option<Rule>) {
        self.read += 1;
        match outcome {
            None => self.kept += 1,
            Some(rule) => *self.dropped.entry(rule).or_default() += 1,
        }
    }
}

/// The form in which texts are measured and compared: NFKC, white space folded to single spaces and trimmed.
#[must_use]
pub fn normalised(text: &str) -> String {
    let composed: String = text.nfkc().collect();
    let mut folded = String::with_capacity(composed.len());
    for word in composed.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    folded
}

/// The first rule that a sample breaks by itself. Lengths are in characters of the normalised texts.
#[must_use]
pub fn quality(sample: &Sample, wanted: Wanted, limits: &DatasetSettings) -> Option<Rule> {
    let query = normalised(&sample.conversation.query);
    let query_chars = query.chars().count();
    if query.is_empty() {
        return Some(Rule::QueryMissing);
    }
    if query_chars < limits.query_min_chars {
        return Some(Rule::QueryTooShort);
    }
    if query_chars > limits.query_max_chars {
        return Some(Rule::QueryTooLong);
    }
    match wanted {
        Wanted::Prompts => None,
        Wanted::Pairs => sample.pair.is_none().then_some(Rule::NoPair),
        Wanted::Rewrites => {
            let rewrite = normalised(&sample.rewrite);
            let rewrite_chars = rewrite.chars().count();
            if rewrite.is_empty() {
                Some(Rule::RewriteMissing)
            } else if rewrite_chars < limits.rewrite_min_chars {
                Some(Rule::RewriteTooShort)
            } else if rewrite_chars > limits.rewrite_max_chars {
                Some(Rule::RewriteTooLong)
            } else if rewrite == query {
                Some(Rule::Unchanged)
            } else if rewrite_chars > limits.rewrite_max_growth * query_chars {
                Some(Rule::RewriteGrewTooMuch)
            } else {
                None
            }
        }
    }
}

/// What was kept before: a hash of its texts and the split it is in, some 40 bytes a sample.
#[derive(Debug, Default)]
pub struct Seen {
    kept: HashMap<u128, Split>,
}

impl Seen {
    /// Enters a sample of `split`; names the rule where the same normalised texts are there already.
    pub fn enter(&mut self, sample: &Sample, wanted: Wanted, split: Split) -> Option<Rule> {
        match self.kept.entry(fingerprint(sample, wanted)) {
            Entry::Vacant(place) => {
                place.insert(split);
                None
            }
            Entry::Occupied(first) if *first.get() == split => Some(Rule::Duplicate),
            Entry::Occupied(_) => Some(Rule::DuplicateOfOtherSplit),
        }
    }
}

/// Hash of the query, the context and the rewrites, normalised. All samples are of one tenant.
fn fingerprint(sample: &Sample, wanted: Wanted) -> u128 {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        let text = normalised(text);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    let said = &sample.conversation;
    for text in [&said.query, &said.user_profile, &said.history_summary, &said.thought] {
        add(text);
    }
    for turn in &said.history {
        add(match turn.role {
            recast_domain::Role::User => "user",
            recast_domain::Role::Assistant => "assistant",
        });
        add(&turn.content);
    }
    match (wanted, &sample.pair) {
        (Wanted::Rewrites, _) => add(&sample.rewrite),
        (Wanted::Pairs, Some(pair)) => {
            add(&pair.student.rewrite);
            add(&pair.baseline.rewrite);
        }
        (Wanted::Pairs, None) | (Wanted::Prompts, _) => {}
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    u128::from_le_bytes(first)
}
