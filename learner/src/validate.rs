//! How good a rewriter is: on validation dialogues as they are, with names it never saw, with characters it never saw,
//! and with a name beside the right one that differs in one place.
use std::collections::{BTreeMap, HashSet};

use rand::seq::SliceRandom as _;
use recast_domain::{Conversation, Split};
use recast_model::{PromptInput, PromptRenderer, Qwen3, SamplerSettings, completion_scores, sample};

use crate::corpus::Corpus;
use crate::curriculum::random;
use crate::error::Result;
use crate::mentions::Mentions;
use crate::names::NameMaker;
use crate::swap::{Names, SplitDialogue, fresh_names};

/// A question with every rewrite that counts as right.
#[derive(Debug, Clone)]
struct Case {
    tenant: String,
    system_prompt: String,
    conversation: Conversation,
    golds: Vec<String>,
    /// Names that a right rewrite holds.
    wanted: Vec<String>,
    /// Names of the conversation that a right rewrite does not hold.
    distractors: Vec<String>,
}

/// The validation questions in their three forms.
#[derive(Debug, Clone)]
pub struct RewriteValidation {
    real: Vec<Case>,
    names: Vec<Case>,
    characters: Vec<Case>,
}

/// Figures of a validation; shares in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RewriteReport {
    /// Greedy rewrites that equal a gold rewrite.
    pub exact: f64,
    /// Greedy rewrites that hold every name they should and no other of the conversation.
    pub entity: f64,
    /// The same as `exact`, with names that training never saw.
    pub exact_unseen_names: f64,
    /// The same as `entity`, with names that training never saw.
    pub entity_unseen_names: f64,
    /// The same as `entity`, with names of characters that training never saw.
    pub entity_unseen_characters: f64,
    /// Of the questions with several new names: rewrites that hold a wrong one.
    pub distractor_errors: f64,
    /// Mean loss of a gold rewrite's token, nats.
    pub gold_loss: f64,
    /// Mean entropy of the predicted distribution at a gold rewrite's token, nats.
    pub entropy: f64,
}

impl RewriteReport {
    /// The figures by name; `score` is the mean of what must work: wording, names, new names, new characters. The wording
    /// counts by how likely a gold token is: a question has several gold rewrites, and equalling one of them is luck.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let wording = (-self.gold_loss).exp();
        let score = (wording + self.entity + self.entity_unseen_names + self.entity_unseen_characters) / 4.0;
        let list = [
            ("score", score),
            ("exact", self.exact),
            ("entity", self.entity),
            ("exact_unseen_names", self.exact_unseen_names),
            ("entity_unseen_names", self.entity_unseen_names),
            ("entity_unseen_characters", self.entity_unseen_characters),
            ("distractor_errors", self.distractor_errors),
            ("gold_loss", self.gold_loss),
            ("entropy", self.entropy),
        ];
        list.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
    }
}

/// Questions a form of [`RewriteValidation::quick`].
const QUICK: usize = 120;
/// Prompts that are read together.
const TOGETHER: usize = 64;

impl RewriteValidation {
    /// The validation split's questions, each also with new names by the two makers.
    #[must_use]
    pub fn new(corpus: &Corpus, names: &NameMaker, seed: u64) -> Self {
        let mut all = Self { real: Vec::new(), names: Vec::new(), characters: Vec::new() };
        let (known, unseen) = (names.of_known_characters(), names.of_unseen_characters());
        let mut rng = random(seed, 4, 0);
        for tenant in &corpus.tenants {
            for dialogue in tenant.split(Split::Val) {
                let split = SplitDialogue::new(dialogue, &tenant.mentions);
                let case = |names: &Names| Case {
                    tenant: tenant.profile.id.to_string(),
                    system_prompt: tenant.profile.system_prompt.clone(),
                    ..Case::new(&split, &tenant.mentions, names)
                };
                all.real.push(case(&Names::new()));
                if split.copies && !split.wanted.is_empty() {
                    all.names.push(case(&fresh_names(&split.forms, &tenant.mentions, &known, &mut rng)));
                    all.characters.push(case(&fresh_names(&split.forms, &tenant.mentions, &unseen, &mut rng)));
                }
            }
        }
        // a prefix of each list is a fair sample
        for list in [&mut all.real, &mut all.names, &mut all.characters] {
            list.shuffle(&mut rng);
        }
        all
    }

    /// A validation on a part of the questions, for use during training.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn quick(&self, model: &Qwen3, renderer: &PromptRenderer) -> Result<RewriteReport> {
        self.on(QUICK, model, renderer)
    }

    /// A validation on all questions.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn full(&self, model: &Qwen3, renderer: &PromptRenderer) -> Result<RewriteReport> {
        self.on(usize::MAX, model, renderer)
    }

    fn on(&self, most: usize, model: &Qwen3, renderer: &PromptRenderer) -> Result<RewriteReport> {
        let part = |list: &[Case]| list[..list.len().min(most)].to_vec();
        let (real, names, characters) = (part(&self.real), part(&self.names), part(&self.characters));
        let of_real = judge(&real, &greedy(&real, model, renderer)?);
        let of_names = judge(&names, &greedy(&names, model, renderer)?);
        let of_characters = judge(&characters, &greedy(&characters, model, renderer)?);
        let (gold_loss, entropy) = teacher_forced(&real, model, renderer)?;
        Ok(RewriteReport {
            exact: of_real.exact,
            entity: of_real.entity,
            exact_unseen_names: of_names.exact,
            entity_unseen_names: of_names.entity,
            entity_unseen_characters: of_characters.entity,
            distractor_errors: of_names.distractor_errors,
            gold_loss,
            entropy,
        })
    }

    /// Some of the greedy rewrites with their questions and the first gold rewrite, for people to read.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn samples(&self, count: usize, model: &Qwen3, renderer: &PromptRenderer) -> Result<Vec<[String; 3]>> {
        let cases = &self.real[..self.real.len().min(count)];
        let written = greedy(cases, model, renderer)?;
        let show = |(case, rewrite): (&Case, String)| {
            let gold = case.golds.first().cloned().unwrap_or_default();
            [case.conversation.query.clone(), rewrite, gold]
        };
        Ok(cases.iter().zip(written).map(show).collect())
    }

    /// Distinct rewrites among eight drawn at temperature 1, the mean over questions; and the share of questions whose
    /// eight are all the same. Reinforcement learning needs the first high and the second low.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn variety(&self, questions: usize, seed: u64, model: &Qwen3, renderer: &PromptRenderer) -> Result<(f64, f64)> {
        let cases = &self.real[..self.real.len().min(questions)];
        let (mut distinct, mut same) = (0, 0);
        for chunk in cases.chunks(TOGETHER / 4) {
            let prompts = prompts(chunk, renderer)?;
            let settings = SamplerSettings { temperature: 1.0, seed, ..settings(renderer) };
            for group in sample(model, &prompts, 8, &settings)?.chunks(8) {
                let count = group.iter().map(|completion| &completion.ids).collect::<HashSet<_>>().len();
                distinct += count;
                same += usize::from(count == 1);
            }
        }
        let count = cases.len().max(1) as f64;
        Ok((distinct as f64 / count, same as f64 / count))
    }
}

impl Case {
    fn new(split: &SplitDialogue, mentions: &Mentions, names: &Names) -> Self {
        let write = |form: &usize| names.get(form).cloned().unwrap_or_else(|| mentions.form(*form).text.clone());
        let wanted: Vec<String> = split.wanted.iter().map(write).collect();
        let others = split.forms.iter().filter(|form| !split.wanted.contains(form)).map(write);
        Self {
            tenant: String::new(),
            system_prompt: String::new(),
            conversation: split.conversation(mentions, names),
            golds: split.golds.iter().map(|gold| gold.written(mentions, names).trim().to_owned()).collect(),
            distractors: others.collect(),
            wanted,
        }
    }

    /// Whether a rewrite holds a wrong name, one that is no part of a right name.
    fn strays(&self, rewrite: &str) -> bool {
        let rest = self.wanted.iter().fold(rewrite.to_owned(), |text, name| text.replace(name, "\n"));
        self.distractors.iter().any(|name| rest.contains(name))
    }

    fn holds_names(&self, rewrite: &str) -> bool {
        // writers may name one of two ways to write a thing
        let right = self.wanted.is_empty() || self.wanted.iter().any(|name| rewrite.contains(name));
        right && !self.strays(rewrite)
    }
}

#[derive(Default)]
struct Judged {
    exact: f64,
    entity: f64,
    distractor_errors: f64,
}

fn judge(cases: &[Case], rewrites: &[String]) -> Judged {
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let pairs = || cases.iter().zip(rewrites);
    let several = cases.iter().filter(|case| !case.distractors.is_empty()).count();
    Judged {
        exact: share(pairs().filter(|(case, rewrite)| case.golds.contains(rewrite)).count(), cases.len()),
        entity: share(pairs().filter(|(case, rewrite)| case.holds_names(rewrite)).count(), cases.len()),
        distractor_errors: share(pairs().filter(|(case, rewrite)| case.strays(rewrite)).count(), several),
    }
}

fn settings(renderer: &PromptRenderer) -> SamplerSettings {
    let max_new_tokens = renderer.settings().max_new_tokens;
    SamplerSettings { temperature: 0.0, top_p: 1.0, max_new_tokens, end: renderer.end(), seed: 0 }
}

fn prompts(cases: &[Case], renderer: &PromptRenderer) -> Result<Vec<Vec<u32>>> {
    let render = |case: &Case| {
        let (tenant, system_prompt) = (case.tenant.as_str(), case.system_prompt.as_str());
        let prompt = renderer.render(&PromptInput { tenant, system_prompt, conversation: &case.conversation })?;
        Ok(prompt.ids)
    };
    cases.iter().map(render).collect()
}

/// The likeliest rewrite of each case, in order.
fn greedy(cases: &[Case], model: &Qwen3, renderer: &PromptRenderer) -> Result<Vec<String>> {
    let prompts = prompts(cases, renderer)?;
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by_key(|place| prompts[*place].len());
    let mut rewrites = vec![String::new(); cases.len()];
    for places in order.chunks(TOGETHER) {
        let together: Vec<&[u32]> = places.iter().map(|place| prompts[*place].as_slice()).collect();
        for (place, completion) in places.iter().zip(sample(model, &together, 1, &settings(renderer))?) {
            rewrites[*place] = renderer.rewrite(&completion.ids)?;
        }
    }
    Ok(rewrites)
}

/// Mean loss and entropy a token of the first gold rewrite.
fn teacher_forced(cases: &[Case], model: &Qwen3, renderer: &PromptRenderer) -> Result<(f64, f64)> {
    let plain = model.detached()?;
    let (mut loss, mut entropy, mut count) = (0.0, 0.0, 0);
    for chunk in cases.chunks(TOGETHER) {
        let prompts = prompts(chunk, renderer)?;
        let gold = |case: &Case| Ok(renderer.completion(case.golds.first().map_or("", String::as_str))?);
        let golds = chunk.iter().map(gold).collect::<Result<Vec<_>>>()?;
        let (scores, _) = completion_scores(&plain, &prompts, &golds, 1.0)?;
        let sum =
            |tensor: candle_core::Tensor| Ok::<_, candle_core::Error>(f64::from(tensor.sum_all()?.to_scalar::<f32>()?));
        count += scores.log_prob.elem_count();
        loss -= sum(scores.log_prob)?;
        entropy += sum(scores.entropy)?;
    }
    let count = count.max(1) as f64;
    Ok((loss / count, entropy / count))
}

/// Mean of `1 / rank` over questions; `ranks` holds the place of the first right passage, from 1, or `None` where the
/// list has none.
#[must_use]
pub fn mean_reciprocal_rank(ranks: &[Option<usize>]) -> f64 {
    let sum: f64 = ranks.iter().flatten().map(|rank| 1.0 / (*rank).max(1) as f64).sum();
    sum / ranks.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_name_is_an_error_and_a_part_of_the_right_one_is_none() {
        let case = Case {
            tenant: String::new(),
            system_prompt: String::new(),
            conversation: Conversation::default(),
            golds: vec!["胶原饮无糖版能喝吗".into()],
            wanted: vec!["胶原饮无糖版".into()],
            distractors: vec!["胶原饮".into(), "钙片".into()],
        };
        let judged = judge(std::slice::from_ref(&case), &["胶原饮无糖版能喝吗".to_owned()]);
        assert_eq!((judged.exact, judged.entity, judged.distractor_errors), (1.0, 1.0, 0.0));
        for wrong in ["胶原饮能喝吗", "钙片能喝吗", "胶原饮无糖版和胶原饮"] {
            assert!(case.strays(wrong) && !case.holds_names(wrong), "{wrong}");
        }
    }

    #[test]
    fn reciprocal_ranks() {
        assert!((mean_reciprocal_rank(&[Some(1), Some(4), None]) - 1.25 / 3.0).abs() < 1e-12);
        assert_eq!(mean_reciprocal_rank(&[]), 0.0);
    }
}
