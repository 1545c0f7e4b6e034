//! Copies of train rows with synonyms put in.

use recast_config::{DatasetSettings, TenantProfile};

use super::sample::Sample;
use super::split::{bits, draw};

/// Whether the `number`-th train row gets a copy: one of every few, at a place that the seed draws anew for each few.
#[must_use]
pub fn is_chosen(seed: u64, number: u64, settings: &DatasetSettings) -> bool {
    let few = u64::from(settings.augment_one_in);
    let Some(group) = number.checked_div(few) else { return false };
    number % few == bits(seed, &["augment", &group.to_string()]) % few
}

/// The copy of a sample with each synonym of the tenant replaced with the set likelihood, once, by the same word in
/// both texts; `None` where nothing was replaced. Words within protected terms stay.
#[must_use]
pub fn augmented(seed: u64, sample: &Sample, tenant: &TenantProfile, settings: &DatasetSettings) -> Option<Sample> {
    let mut copy = Sample { augmented: true, ..sample.clone() };
    let mut changed = false;
    for (word, others) in &tenant.synonyms {
        let replaced = draw(seed, &["synonym", &sample.episode_id, word]) < settings.synonym_share;
        let other = bits(seed, &["choice", &sample.episode_id, word]).checked_rem(others.len() as u64);
        let (true, Some(other)) = (replaced && !word.is_empty(), other) else { continue };
        let other = &others[other as usize];
        for text in [&mut copy.conversation.query, &mut copy.rewrite] {
            if let Some(at) = free_place(text, word, &tenant.protected_terms) {
                text.replace_range(at..at + word.len(), other);
                changed = true;
            }
        }
    }
    // a judge scored other words, and other words were searched with
    copy.quality_score = None;
    copy.top1_score = None;
    changed.then_some(copy)
}

/// Where `word` first stands outside every protected term.
fn free_place(text: &str, word: &str, protected: &[String]) -> Option<usize> {
    let within = |at: usize| {
        protected.iter().filter(|term| !term.is_empty()).any(|term| {
            text.match_indices(term.as_str()).any(|(start, _)| start <= at && at + word.len() <= start + term.len())
        })
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| !within(*at))
}
