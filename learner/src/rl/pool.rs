//! A fixed set of questions, drawn in a new order each time all have been asked.
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use recast_model::PromptRenderer;

use super::sample::{Question, Questions};
use crate::curriculum::random;
use crate::error::{LearnError, Result};

/// Questions with their prompts rendered.
pub struct QuestionPool {
    questions: Vec<Question>,
    renderer: PromptRenderer,
    seed: u64,
}

impl QuestionPool {
    /// A pool over questions that `renderer` rendered.
    ///
    /// # Errors
    /// Where there are none.
    pub fn new(questions: Vec<Question>, renderer: PromptRenderer, seed: u64) -> Result<Self> {
        if questions.is_empty() {
            return Err(LearnError::Data("there is no question to learn from".into()));
        }
        Ok(Self { questions, renderer, seed })
    }

    /// All of them, in the order they came in.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// What rendered the prompts.
    #[must_use]
    pub fn renderer(&self) -> &PromptRenderer {
        &self.renderer
    }

    /// The text of a completion, without its end mark.
    ///
    /// # Errors
    /// Where the tokenizer refuses.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        Ok(self.renderer.rewrite(ids)?)
    }

    fn epoch(&self, number: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.questions.len()).collect();
        order.shuffle(&mut random(self.seed, 5, number));
        order
    }
}

impl Questions for QuestionPool {
    fn draw(&self, step: u64, attempt: u32, count: usize) -> Result<Vec<Question>> {
        let all = self.questions.len();
        if attempt > 0 {
            // replacements are any questions: which ones are due is the main draw's affair
            let mut rng = random(self.seed, 6, step * 64 + u64::from(attempt));
            return Ok((0..count).map(|_| self.questions[rng.random_range(0..all)].clone()).collect());
        }
        let mut drawn = Vec::with_capacity(count);
        let mut known = None;
        for place in step * count as u64..(step + 1) * count as u64 {
            let epoch = place / all as u64;
            if known.as_ref().is_none_or(|(number, _)| *number != epoch) {
                known = Some((epoch, self.epoch(epoch)));
            }
            if let Some((_, order)) = &known {
                drawn.push(self.questions[order[(place % all as u64) as usize]].clone());
            }
        }
        Ok(drawn)
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        Self::text(self, ids)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use recast_model::{PromptSettings, VocabularySettings, train_tokenizer};

    use super::*;

    #[test]
    fn every_question_once_before_any_twice_and_the_same_after_a_restart() {
        let tokenizer = train_tokenizer(&[], "", VocabularySettings { entries: 300, words: 0 }).unwrap();
        let pool = || {
            let renderer = PromptRenderer::new(Arc::new(tokenizer.clone()), PromptSettings::default()).unwrap();
            let question = |number: usize| Question { id: number.to_string(), ids: vec![number as u32] };
            QuestionPool::new((0..10).map(question).collect(), renderer, 3).unwrap()
        };
        let draw = |step| pool().draw(step, 0, 4).unwrap();
        let first: Vec<Question> = (0..5).flat_map(draw).collect();
        for epoch in first.chunks(10) {
            assert_eq!(epoch.iter().map(|question| &question.id).collect::<HashSet<_>>().len(), 10);
        }
        assert_ne!(first[..10], first[10..]);
        assert_eq!(draw(3), first[12..16]);
        assert_ne!(pool().draw(3, 1, 4).unwrap(), pool().draw(3, 2, 4).unwrap());
    }
}
