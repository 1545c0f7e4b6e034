//! What the rewriter is shown, example by example.
//!
//! Example `i` is a pure function of the seed and `i`: every epoch passes over the train dialogues in a new order, each
//! time with new names and another writer's rewrite.
use std::sync::Arc;

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use recast_domain::{Conversation, Role, Turn};

use crate::corpus::TrainingData;
use crate::names::NameMaker;
use crate::swap::{Names, SplitDialogue, SplitText, fresh_names};
use crate::ways;

/// A question with its context, and one rewrite that a careful person wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Place of the tenant in the training data.
    pub tenant: usize,
    /// What the model reads.
    pub conversation: Conversation,
    /// What it should write.
    pub rewrite: String,
}

/// An endless stream of examples.
#[derive(Debug, Clone)]
pub struct Curriculum {
    data: Arc<TrainingData>,
    names: NameMaker,
    seed: u64,
    /// Tenant and place of every train dialogue.
    items: Vec<(usize, usize)>,
    shares: Shares,
}

/// What shares of the examples are of which kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Dialogues whose names are replaced by fresh ones.
    pub swapped: f64,
    /// Examples that only practise copying, once the start is over.
    pub copies: f64,
    /// Rewrites that are the one nearest the asker's words; the others are any writer's. A model that learned to keep
    /// words can keep those it never saw; one that learned to replace them replaces those too, by something else.
    pub faithful: f64,
    /// Questions whose words are replaced by others, in the query and in the rewrite that keeps them.
    pub reworded: f64,
    /// Questions that ask again about another thing, or point at one of several, and do so in another way.
    pub other_ways: f64,
}

/// Share of copying practice at the very start, where it makes the copying circuit form sooner.
const COPIES_AT_START: f64 = 0.25;
/// Share of the run that counts as the start.
const START: f64 = 0.06;

impl Curriculum {
    /// A stream over training data with these shares, each in `[0, 1]`.
    #[must_use]
    pub fn new(data: Arc<TrainingData>, names: NameMaker, seed: u64, shares: Shares) -> Self {
        let tenants = data.tenants.iter().enumerate();
        let items = tenants.flat_map(|(t, tenant)| (0..tenant.dialogues.len()).map(move |d| (t, d))).collect();
        let share = |share: f64| share.clamp(0.0, 1.0);
        let shares = Shares {
            swapped: share(shares.swapped),
            copies: share(shares.copies),
            faithful: share(shares.faithful),
            reworded: share(shares.reworded),
            other_ways: share(shares.other_ways),
        };
        Self { data, names, seed, items, shares }
    }

    /// Dialogues of an epoch.
    #[must_use]
    pub fn epoch_len(&self) -> usize {
        self.items.len()
    }

    /// The data the stream draws from.
    #[must_use]
    pub fn data(&self) -> &TrainingData {
        &self.data
    }

    /// Examples `from .. from + count`; `progress` in `[0, 1]` is the place in the run.
    #[must_use]
    pub fn examples(&self, from: u64, count: usize, progress: f64) -> Vec<Example> {
        let length = self.items.len() as u64;
        let mut epoch = None;
        let mut order = Vec::new();
        let mut examples = Vec::with_capacity(count);
        for index in from..from + count as u64 {
            if epoch != Some(index / length) {
                epoch = Some(index / length);
                order.clone_from(&self.items);
                order.shuffle(&mut random(self.seed, 1, index / length));
            }
            let mut rng = random(self.seed, 2, index);
            let (tenant, dialogue) = order[(index % length) as usize];
            let copies = if progress < START { COPIES_AT_START.max(self.shares.copies) } else { self.shares.copies };
            examples.push(if self.shares.copies > 0.0 && rng.random_bool(copies) {
                self.copying(tenant, &mut rng)
            } else {
                self.rewriting(tenant, &self.data.tenants[tenant].dialogues[dialogue], &mut rng)
            });
        }
        examples
    }

    fn rewriting(&self, tenant: usize, dialogue: &SplitDialogue, rng: &mut ChaCha8Rng) -> Example {
        let mentions = &self.data.tenants[tenant].mentions;
        let names = if dialogue.copies && rng.random_bool(self.shares.swapped) {
            fresh_names(&dialogue.forms, mentions, &self.names, rng)
        } else {
            Names::new()
        };
        let said = self.said(tenant, dialogue, rng);
        let dialogue = said.as_ref().unwrap_or(dialogue);
        let mut conversation = dialogue.conversation(mentions, &names);
        // the note is often absent when it counts
        if rng.random_bool(0.3) {
            conversation.thought.clear();
        }
        let gold = if rng.random_bool(self.shares.faithful) {
            dialogue.golds.get(dialogue.faithful)
        } else {
            dialogue.golds.choose(rng)
        };
        let rewrite = gold.map(|gold| gold.written(mentions, &names)).unwrap_or_default();
        Example { tenant, conversation, rewrite }
    }

    /// The dialogue with its question said in another way, if it is to be.
    fn said(&self, tenant: usize, dialogue: &SplitDialogue, rng: &mut ChaCha8Rng) -> Option<SplitDialogue> {
        let reworded = rng.random_bool(self.shares.reworded);
        let other = rng.random_bool(self.shares.other_ways);
        if dialogue.kept.is_empty() {
            let query = (other && ways::asks_again(&dialogue.query)).then(|| ways::again(&dialogue.query, rng))?;
            return Some(SplitDialogue { query, ..dialogue.clone() });
        }
        let pointing = if other { ways::pointing(&dialogue.query, rng) } else { None };
        if !reworded {
            return pointing.map(|query| SplitDialogue { query, ..dialogue.clone() });
        }
        // Words that no vocabulary of questions holds can only be kept by copying them.
        let words = self.words(tenant, rng);
        let query = pointing.as_ref().unwrap_or(&dialogue.query).reworded(&dialogue.kept, &words);
        let golds = vec![dialogue.golds[dialogue.faithful].reworded(&dialogue.kept, &words)];
        Some(SplitDialogue { query, golds, faithful: 0, thought: SplitText(Vec::new()), ..dialogue.clone() })
    }

    /// Words for a question: halves of two questions of the train split, a stretch of some passage, or characters
    /// without meaning. The halves look most like a question that nobody asked yet.
    fn words(&self, tenant: usize, rng: &mut ChaCha8Rng) -> String {
        let kind = rng.random_range(0..10);
        if kind < 5 {
            let any = self.items.choose(rng).zip(self.items.choose(rng));
            let kept = |(t, d): &(usize, usize)| self.data.tenants[*t].dialogues[*d].kept.chars().collect::<Vec<_>>();
            if let Some((first, second)) = any.map(|(first, second)| (kept(first), kept(second)))
                && !first.is_empty()
                && !second.is_empty()
            {
                let (end, start) = (rng.random_range(1..=first.len()), rng.random_range(0..second.len()));
                return first[..end].iter().chain(&second[start..]).collect();
            }
        }
        let tenant = &self.data.tenants[tenant];
        let passage = tenant.passages.choose(rng).filter(|_| kind < 8);
        let Some(passage) = passage else { return self.names.noise(rng) };
        let text: Vec<char> = passage.text.original(&tenant.mentions).chars().filter(|c| !c.is_control()).collect();
        let length = rng.random_range(2..=10).min(text.len());
        let start = rng.random_range(0..=text.len() - length);
        let words: String = text[start..start + length].iter().collect();
        if words.trim().is_empty() { self.names.noise(rng) } else { words.trim().to_owned() }
    }

    /// Some spans without meaning, and a question that starts like one of them: the answer is that span.
    fn copying(&self, tenant: usize, rng: &mut ChaCha8Rng) -> Example {
        let mut spans: Vec<String> = (0..rng.random_range(1..5)).map(|_| self.names.noise(rng)).collect();
        spans.dedup();
        let asked = spans.choose(rng).cloned().unwrap_or_default();
        let start: String = asked.chars().take(2).collect();
        let turn = |(i, span): (usize, &String)| Turn {
            role: if i.is_multiple_of(2) { Role::User } else { Role::Assistant },
            content: span.clone(),
        };
        let history = spans.iter().enumerate().map(turn).collect();
        let conversation = Conversation { query: start, history, ..Conversation::default() };
        Example { tenant, conversation, rewrite: asked }
    }
}

/// The random numbers of one thing: independent of every other thing, and the same in every run with the seed.
pub(crate) fn random(seed: u64, kind: u64, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ kind.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    rng.set_stream(index);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Corpus;
    use crate::names::tests::maker;
    use crate::swap::tests::tenant;

    fn curriculum(swapped: f64, copies: f64) -> Curriculum {
        let data = Corpus { tenants: vec![tenant()] }.training().unwrap();
        Curriculum::new(
            Arc::new(data),
            maker(),
            7,
            Shares { swapped, copies, faithful: 0.0, reworded: 0.0, other_ways: 0.0 },
        )
    }

    #[test]
    fn any_stretch_of_the_stream_can_be_drawn_again() {
        let curriculum = curriculum(0.75, 0.05);
        let all = curriculum.examples(0, 60, 0.5);
        assert_eq!(curriculum.examples(25, 20, 0.5), all[25..45]);
        let epochs: Vec<_> = all.chunks(curriculum.epoch_len()).collect();
        assert_ne!(epochs[0], epochs[1], "an epoch brings new names");
    }

    #[test]
    fn shares_are_kept() {
        let text = |example: &Example| format!("{:?}{}", example.conversation, example.rewrite);
        let real = |example: &&Example| ["胶原饮", "钙片"].iter().any(|name| text(example).contains(name));
        let swapped = curriculum(0.75, 0.0).examples(0, 600, 0.5);
        let kept = swapped.iter().filter(real).count();
        assert!((110..210).contains(&kept), "{kept} of 600 keep their names");
        let plain = curriculum(0.0, 0.0).examples(0, 10, 0.5);
        assert_eq!(plain.iter().filter(real).count(), 10);
        let copies = curriculum(0.0, 1.0).examples(0, 50, 0.5);
        for example in copies {
            assert!(example.rewrite.starts_with(&example.conversation.query));
            assert!(example.conversation.history.iter().any(|turn| turn.content == example.rewrite));
        }
    }

    #[test]
    fn reworded_questions_and_their_rewrites_share_words_that_training_does_not_hold() {
        let data = Corpus { tenants: vec![tenant()] }.training().unwrap();
        let shares = Shares { swapped: 0.75, copies: 0.0, faithful: 1.0, reworded: 1.0, other_ways: 0.0 };
        let examples = Curriculum::new(Arc::new(data), maker(), 7, shares).examples(0, 200, 0.5);
        let usual = ["孕妇能喝吗", "怎么吃", "多少钱"];
        for example in &examples {
            let (query, rewrite) = (&example.conversation.query, &example.rewrite);
            let words = query.trim_start_matches("第二个").trim();
            assert!(rewrite.contains(words), "{rewrite} does not keep {words}");
        }
        let distinct: std::collections::HashSet<_> = examples.iter().map(|e| &e.conversation.query).collect();
        let as_they_were = examples.iter().filter(|e| usual.contains(&e.conversation.query.as_str())).count();
        assert!(as_they_were < 60, "{as_they_were} of 200 are as they were");
        assert!(distinct.len() > 100, "{} of 200 are distinct", distinct.len());
    }

    #[test]
    fn no_other_split_is_ever_drawn() {
        for example in curriculum(0.0, 0.0).examples(0, 200, 0.5) {
            let text = format!("{example:?}");
            assert!(!text.contains("秘密") && !text.contains("玫瑰") && !text.contains("验证"), "{text}");
        }
    }

    #[test]
    fn a_rewrite_names_only_what_the_model_can_read() {
        for example in curriculum(1.0, 0.0).examples(0, 300, 0.5) {
            let readable = format!("{:?}", example.conversation);
            let words = ["孕妇能喝吗", "怎么吃", "多少钱"];
            let name = words.iter().fold(example.rewrite.clone(), |text, word| text.replace(word, ""));
            assert!(readable.contains(name.trim()), "{name} is not in {readable}");
        }
    }
}
