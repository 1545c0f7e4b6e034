//! Questions with the passage that answers them and passages that almost do: what embedder and reranker learn from.
use std::collections::HashMap;
use std::sync::Arc;

use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use recast_domain::Role;

use crate::corpus::{TenantTraining, TrainingData};
use crate::curriculum::random;
use crate::names::NameMaker;
use crate::swap::{Names, SplitDialogue, SplitPassage, SplitText, fresh_names};

/// A batch of questions of one tenant and the passages that all of them are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct RankingBatch {
    /// Questions.
    pub queries: Vec<String>,
    /// Passages: the answer of each question in their order, then hard negatives.
    pub candidates: Vec<String>,
    /// For each question the candidates beside its answer that answer it too; they are no negatives.
    pub also_right: Vec<Vec<usize>>,
}

/// Settings of [`PairMaker`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairSettings {
    /// Questions a batch.
    pub rows: usize,
    /// Hard negatives a question: in turn another aspect of its entity, and its aspect of an entity of like name.
    pub hard: usize,
    /// Share of questions whose names are replaced by fresh ones, in question and passages alike.
    pub swapped: f64,
    /// Seed of everything random.
    pub seed: u64,
}

/// An endless stream of batches; batch `i` is a pure function of the seed and `i`.
#[derive(Debug, Clone)]
pub struct PairMaker {
    data: Arc<TrainingData>,
    names: NameMaker,
    settings: PairSettings,
    tenants: Vec<TenantPairs>,
}

#[derive(Debug, Clone)]
struct TenantPairs {
    /// Train dialogues with the places of the passages that answer them, the best first.
    items: Vec<(usize, Vec<usize>)>,
    /// By passage: other passages on the same entity.
    kin: Vec<Vec<usize>>,
    /// By passage: the same aspect of the entities with the likest names.
    siblings: Vec<Vec<usize>>,
}

/// Entities of like name that are kept for each.
const SIBLINGS: usize = 5;

impl TenantPairs {
    fn new(tenant: &TenantTraining) -> Self {
        let answers = |dialogue: &SplitDialogue| {
            let mut relevant: Vec<_> = dialogue.relevant.iter().collect();
            relevant.sort_by_key(|relevance| std::cmp::Reverse(relevance.grade));
            // a passage about an entity of another split is not here, and its question is left out with it
            let places = relevant.iter().map(|relevance| tenant.by_id.get(&relevance.id).copied());
            places.collect::<Option<Vec<usize>>>().filter(|places| !places.is_empty())
        };
        let dialogues = tenant.dialogues.iter().enumerate();
        let items = dialogues.filter_map(|(place, dialogue)| Some((place, answers(dialogue)?))).collect();
        let passages = &tenant.passages;
        let others = |wanted: &dyn Fn(&SplitPassage) -> bool| -> Vec<usize> {
            (0..passages.len()).filter(|place| wanted(&passages[*place])).collect()
        };
        let kin = |passage: &SplitPassage| others(&|other| other.entity == passage.entity && other.id != passage.id);
        let mut likeness: HashMap<(&str, &str), usize> = HashMap::new();
        let mut siblings = Vec::with_capacity(passages.len());
        for passage in passages {
            let mut found = others(&|other| other.aspect == passage.aspect && other.entity != passage.entity);
            if passage.entity.is_empty() {
                found.clear();
            }
            found.sort_by_key(|place| {
                let pair = (passage.entity.as_str(), passages[*place].entity.as_str());
                std::cmp::Reverse(*likeness.entry(pair).or_insert_with(|| shared(pair.0, pair.1)))
            });
            found.truncate(SIBLINGS);
            siblings.push(found);
        }
        Self { items, kin: passages.iter().map(kin).collect(), siblings }
    }
}

/// Characters of `a` that are in `b` too, in per mille.
fn shared(a: &str, b: &str) -> usize {
    1000 * a.chars().filter(|c| b.contains(*c)).count() / a.chars().count().max(1)
}

/// A question with what it is compared to, before the batch is put together.
struct Item {
    query: String,
    answer: String,
    /// Texts that answer the question, the answer among them.
    right: Vec<String>,
    hard: Vec<String>,
}

impl PairMaker {
    /// A stream over training data.
    #[must_use]
    pub fn new(data: Arc<TrainingData>, names: NameMaker, settings: PairSettings) -> Self {
        let tenants = data.tenants.iter().map(TenantPairs::new).collect();
        Self { data, names, settings, tenants }
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn epoch_len(&self) -> usize {
        self.tenants.iter().map(|tenant| tenant.items.len().div_ceil(self.settings.rows.max(1))).sum()
    }

    /// Batch number `index`; `None` where there is no question with an answer.
    #[must_use]
    pub fn batch(&self, index: u64) -> Option<RankingBatch> {
        let length = self.epoch_len() as u64;
        let epoch = index.checked_div(length)?;
        let mut rng = random(self.settings.seed, 11, epoch);
        let mut batches = Vec::new();
        for (tenant, pairs) in self.tenants.iter().enumerate() {
            let mut order: Vec<usize> = (0..pairs.items.len()).collect();
            order.shuffle(&mut rng);
            batches.extend(order.chunks(self.settings.rows.max(1)).map(|items| (tenant, items.to_vec())));
        }
        batches.shuffle(&mut rng);
        let (tenant, items) = &batches[(index % length) as usize];
        let mut rng = random(self.settings.seed, 12, index);
        let items: Vec<Item> = items.iter().map(|item| self.item(*tenant, *item, &mut rng)).collect();
        let mut candidates: Vec<String> = items.iter().map(|item| item.answer.clone()).collect();
        candidates.extend(items.iter().flat_map(|item| item.hard.iter().cloned()));
        let also_right = items.iter().enumerate().map(|(row, item)| {
            let others = (0..candidates.len()).filter(|place| *place != row);
            others.filter(|place| item.right.contains(&candidates[*place])).collect()
        });
        let also_right = also_right.collect();
        Some(RankingBatch { queries: items.into_iter().map(|item| item.query).collect(), candidates, also_right })
    }

    fn item(&self, tenant: usize, item: usize, rng: &mut ChaCha8Rng) -> Item {
        let (pairs, tenant) = (&self.tenants[tenant], &self.data.tenants[tenant]);
        let (dialogue, answers) = &pairs.items[item];
        let dialogue = &tenant.dialogues[*dialogue];
        let mentions = &tenant.mentions;
        let answer = answers[0];
        let passage = &tenant.passages[answer];
        let swapped = !passage.entity.is_empty() && rng.random_bool(self.settings.swapped.clamp(0.0, 1.0));
        let mut forms = dialogue.forms.clone();
        for form in answers.iter().flat_map(|place| tenant.passages[*place].text.forms()) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        let names = if swapped { fresh_names(&forms, mentions, &self.names, rng) } else { Names::new() };
        let write = |place: usize, names: &Names| tenant.passages[place].text.written(mentions, names);
        let mut hard = Vec::new();
        for number in 0..self.settings.hard {
            let kin = pairs.kin[answer].choose(rng).copied();
            let text = match kin.filter(|_| number.is_multiple_of(2)) {
                Some(kin) => write(kin, &self.renamed(tenant, kin, &passage.entity, &names, false, rng)),
                None => match pairs.siblings[answer].choose(rng).copied() {
                    Some(sibling) => write(sibling, &self.renamed(tenant, sibling, &passage.entity, &names, true, rng)),
                    None => match kin.or_else(|| (0..tenant.passages.len()).collect::<Vec<_>>().choose(rng).copied()) {
                        Some(other) => write(other, &names),
                        None => continue,
                    },
                },
            };
            hard.push(text);
        }
        Item {
            query: query(dialogue, tenant, &names, rng),
            answer: write(answer, &names),
            right: answers.iter().map(|place| write(*place, &names)).collect(),
            hard,
        }
    }

    /// The names for a hard negative. Where the question's names are fresh, the forms of `entity` in the passage are
    /// written the same way; those of a sibling get a name near to it, so that one character must decide.
    fn renamed(
        &self,
        tenant: &TenantTraining,
        place: usize,
        entity: &str,
        names: &Names,
        sibling: bool,
        rng: &mut ChaCha8Rng,
    ) -> Names {
        let mentions = &tenant.mentions;
        let fresh = names.iter().find(|(form, _)| mentions.form(**form).entity == entity).map(|(_, name)| name.clone());
        let Some(fresh) = fresh else { return names.clone() };
        let mut own = names.clone();
        let near = self.names.near(&fresh, rng);
        let passage = &tenant.passages[place];
        for form in passage.text.forms() {
            let of = &mentions.form(form).entity;
            if own.contains_key(&form) {
                continue;
            }
            if of == entity {
                own.insert(form, fresh.clone());
            } else if sibling && *of == passage.entity {
                own.insert(form, near.clone());
            } else {
                own.insert(form, self.names.name(rng));
            }
        }
        own
    }
}

/// One of the texts that a retriever is asked with: mostly a rewrite, else the question with or without what was said.
fn query(dialogue: &SplitDialogue, tenant: &TenantTraining, names: &Names, rng: &mut ChaCha8Rng) -> String {
    let write = |text: &SplitText| text.written(&tenant.mentions, names);
    let speaks = dialogue.query.forms().any(|form| dialogue.wanted.contains(&form));
    match rng.random_range(0..100) {
        0..15 if speaks || dialogue.wanted.is_empty() => write(&dialogue.query),
        15..35 => {
            let said = dialogue.history.iter().filter(|(role, _)| *role == Role::User).map(|(_, text)| write(text));
            let mut parts: Vec<String> = said.collect();
            parts.push(write(&dialogue.query));
            let newest = parts.len().saturating_sub(3);
            parts[newest..].join(" ")
        }
        _ => dialogue.golds.choose(rng).map(write).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Corpus;
    use crate::names::tests::maker;
    use crate::swap::tests::tenant;

    fn pairs(swapped: f64) -> PairMaker {
        let data = Corpus { tenants: vec![tenant()] }.training().unwrap();
        let settings = PairSettings { rows: 4, hard: 2, swapped, seed: 3 };
        PairMaker::new(Arc::new(data), maker(), settings)
    }

    #[test]
    fn batches_repeat_by_number_and_hold_no_other_split() {
        for swapped in [0.0, 1.0] {
            let pairs = pairs(swapped);
            assert_eq!(pairs.epoch_len(), 3);
            for index in 0..30 {
                let batch = pairs.batch(index).unwrap();
                assert_eq!(pairs.batch(index).unwrap(), batch);
                assert_eq!(batch.candidates.len(), batch.queries.len() * 3);
                let text = format!("{batch:?}");
                assert!(!text.contains("秘密") && !text.contains("玫瑰") && !text.contains("验证"), "{text}");
            }
        }
    }

    #[test]
    fn fresh_names_are_the_same_in_question_and_passage() {
        let pairs = pairs(1.0);
        for index in 0..20 {
            let batch = pairs.batch(index).unwrap();
            for (row, passage) in batch.candidates[..batch.queries.len()].iter().enumerate() {
                let words = ["不适宜人群", "食用方法", "价格"];
                let name = words.iter().find_map(|word| passage.split_once(word)).unwrap().0;
                assert!(!["胶原饮", "胶原饮无糖版", "钙片"].contains(&name), "{passage} kept its name");
                // whoever asks may use the short form, which is made of the name's characters
                let query = &batch.queries[row];
                assert!(name.chars().any(|c| query.contains(c)), "{query} does not fit {passage}");
            }
        }
    }

    #[test]
    fn a_second_right_passage_is_no_negative() {
        let pairs = pairs(0.0);
        for index in 0..30 {
            let batch = pairs.batch(index).unwrap();
            for (row, right) in batch.also_right.iter().enumerate() {
                for (place, candidate) in batch.candidates.iter().enumerate() {
                    let same = place != row && *candidate == batch.candidates[row];
                    assert_eq!(right.contains(&place), same);
                }
            }
        }
    }
}
