//! Practice that keeps a policy able to copy while it learns from rewards.
//!
//! Rewards of a search can only be had for names that the knowledge base holds, and a policy that sees no others may
//! come to prefer them. So a share of each step's questions are of the curriculum of supervised training, with names and
//! words that nobody ever wrote; their reward is how near a completion is to the one right rewrite.
use recast_domain::{Environment, RolloutItem, Scored};
use recast_model::{PromptInput, PromptRenderer};

use super::pool::QuestionPool;
use super::sample::{Question, Questions};
use crate::curriculum::{Curriculum, Example};
use crate::error::Result;

const MARK: &str = "fresh:";

/// Questions of a pool, and among them some with fresh names.
pub struct WithFreshNames {
    pool: QuestionPool,
    curriculum: Curriculum,
    share: f64,
}

impl WithFreshNames {
    /// A pool, and the share of questions in `[0, 1]` that the curriculum brings.
    #[must_use]
    pub fn new(pool: QuestionPool, curriculum: Curriculum, share: f64) -> Self {
        Self { pool, curriculum, share: share.clamp(0.0, 1.0) }
    }

    /// An environment that knows the fresh questions, and asks another one about the others.
    #[must_use]
    pub fn environment<'a>(&'a self, inner: &'a dyn Environment) -> impl Environment + 'a {
        Guarded { fresh: self, inner }
    }

    fn example(&self, number: u64) -> Option<Example> {
        self.curriculum.examples(number, 1, 1.0).pop()
    }

    fn question(&self, number: u64, renderer: &PromptRenderer) -> Result<Option<Question>> {
        let Some(example) = self.example(number) else { return Ok(None) };
        let tenant = &self.curriculum.data().tenants[example.tenant];
        let input = PromptInput {
            tenant: &tenant.id,
            system_prompt: &tenant.system_prompt,
            conversation: &example.conversation,
        };
        Ok(Some(Question { id: format!("{MARK}{number}"), ids: renderer.render(&input)?.ids }))
    }
}

impl Questions for WithFreshNames {
    fn draw(&self, step: u64, attempt: u32, count: usize) -> Result<Vec<Question>> {
        let fresh = (count as f64 * self.share).round() as usize;
        let mut drawn = self.pool.draw(step, attempt, count - fresh)?;
        let first = (step * 64 + u64::from(attempt)) * count as u64;
        for number in first..first + fresh as u64 {
            drawn.extend(self.question(number, self.pool.renderer())?);
        }
        Ok(drawn)
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        self.pool.text(ids)
    }
}

struct Guarded<'a> {
    fresh: &'a WithFreshNames,
    inner: &'a dyn Environment,
}

impl Environment for Guarded<'_> {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let number = |item: &RolloutItem| item.question.strip_prefix(MARK)?.parse::<u64>().ok();
        let (mut known, mut scores) = (None, vec![None; items.len()]);
        let mut others = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let Some(number) = number(item) else {
                others.push(place);
                continue;
            };
            if known.as_ref().is_none_or(|(of, _)| *of != number) {
                known = Some((number, self.fresh.example(number)));
            }
            scores[place] = known.as_ref().and_then(|(_, example)| Some(likeness(&item.text, example.as_ref()?)));
        }
        let asked: Vec<RolloutItem> = others.iter().map(|place| items[*place].clone()).collect();
        for (place, scored) in others.into_iter().zip(self.inner.score(&asked)) {
            scores[place] = scored;
        }
        scores
    }

    fn baselines(&self, questions: &[String]) -> Vec<Option<f64>> {
        self.inner.baselines(questions)
    }
}

/// The reward of a completion for a question with one right rewrite, in `[-1, 1]`: the overlap of the two in order, and
/// as much again where they are the same.
fn likeness(text: &str, example: &Example) -> Scored {
    let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let (written, right) = (squeeze(text), squeeze(&example.rewrite));
    let same = written == right;
    let overlap = 2.0 * common(&written, &right) as f64 / (written.len() + right.len()).max(1) as f64;
    Scored {
        reward: overlap + f64::from(u8::from(same)) - 1.0,
        parts: [("copied_right".to_owned(), f64::from(u8::from(same)))].into(),
        valid: !written.is_empty(),
        copied: false,
    }
}

/// Length of the longest common subsequence.
fn common(a: &[char], b: &[char]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (place, y) in b.iter().enumerate() {
            let above = row[place + 1];
            row[place + 1] = if x == y { diagonal + 1 } else { above.max(row[place]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use recast_domain::Conversation;

    use super::*;

    #[test]
    fn the_reward_is_the_overlap_and_more_for_the_whole() {
        let example =
            Example {
                tenant: 0, conversation: Conversation::default(), rewrite: "胶原蛋白 孕妇能喝吗".into()
            };
        let reward = |text: &str| likeness(text, &example).reward;
        assert!((reward("胶原蛋白孕妇能喝吗") - 1.0).abs() < 1e-12);
        assert!((reward("胶原蛋白") - (8.0 / 13.0 - 1.0)).abs() < 1e-12);
        assert!((reward("价格") + 1.0).abs() < 1e-12);
        assert!(reward("胶原蛋白 孕妇") > reward("钙片 孕妇"));
        assert!(!likeness(" ", &example).valid);
    }
}
