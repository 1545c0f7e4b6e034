//! Training of the embedder: the answer's vector shall be nearer to the question's than that of any other passage of
//! the batch (InfoNCE over in-batch and hard negatives).
use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use recast_domain::Split;
use recast_model::{Batch, Encoder, Gradients, Kernels, token_scores};

use crate::corpus::{Corpus, searched_text};
use crate::error::{LearnError, Result};
use crate::pairs::{PairMaker, RankingBatch};
use crate::sft::in_threads;
use crate::trainer::{Objective, StepLoss};
use crate::validate::mean_reciprocal_rank;

/// Mean cross-entropy of choosing candidate `targets[i]` for question `i` under `softmax(scale * scores)`,
/// `scores [n, m]`; candidates in `also_right[i]` take no part in row `i`.
///
/// # Errors
/// Where the counts differ.
pub fn ranking_loss(scores: &Tensor, targets: &[u32], also_right: &[Vec<usize>], scale: f64) -> Result<Tensor> {
    let (rows, columns) = scores.dims2()?;
    let mut mask = vec![0f32; rows * columns];
    for (row, places) in also_right.iter().enumerate() {
        for place in places {
            mask[row * columns + place] = -1e4;
        }
    }
    let mask = Tensor::from_vec(mask, (rows, columns), scores.device())?;
    let logits = ((scores * scale)? + mask)?.contiguous()?;
    let chosen = token_scores(Kernels::of(scores.device()), &logits, targets, 1.0)?;
    Ok(chosen.log_prob.mean_all()?.neg()?)
}

/// [`ranking_loss`] on the scalar products of vectors, `queries [n, d]` and `candidates [m, d]` (multiple negatives
/// ranking; vectors of length one make it the cosine form). `scale` is one over the temperature.
///
/// # Errors
/// Where the shapes do not fit.
pub fn in_batch_loss(
    queries: &Tensor,
    candidates: &Tensor,
    targets: &[u32],
    also_right: &[Vec<usize>],
    scale: f64,
) -> Result<Tensor> {
    ranking_loss(&queries.matmul(&candidates.t()?)?, targets, also_right, scale)
}

/// Texts of a batch as tokens, candidates sorted by length so that parts of a step have little filling.
pub(crate) struct Tokens {
    pub queries: Vec<Vec<u32>>,
    pub candidates: Vec<Vec<u32>>,
    /// Place of each question's answer among the sorted candidates.
    pub targets: Vec<u32>,
    pub also_right: Vec<Vec<usize>>,
}

impl Tokens {
    fn new(encoder: &Encoder, batch: &RankingBatch) -> Result<Self> {
        let spell = |texts: &[String]| texts.iter().map(|text| Ok(encoder.tokens(text)?)).collect::<Result<Vec<_>>>();
        let candidates = spell(&batch.candidates)?;
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by_key(|place| candidates[*place].len());
        let mut sorted_place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            sorted_place[*old] = new;
        }
        let moved = |places: &Vec<usize>| places.iter().map(|place| sorted_place[*place]).collect();
        Ok(Self {
            queries: spell(&batch.queries)?,
            targets: (0..batch.queries.len()).map(|row| sorted_place[row] as u32).collect(),
            also_right: batch.also_right.iter().map(moved).collect(),
            candidates: order.iter().map(|place| candidates[*place].clone()).collect(),
        })
    }
}

/// Sequences that one thread encodes at a time.
const PART: usize = 12;

/// Loss and gradients of a step whose texts are encoded in parts on several threads.
///
/// The parts are encoded first, the loss is taken over all vectors together and its gradient handed back to each part,
/// so that the result is that of one large batch.
pub(crate) fn encode_and_compare(
    encoder: &Encoder,
    batch: &RankingBatch,
    workers: usize,
    encode: impl Fn(&Batch) -> Result<Tensor> + Sync,
    loss: impl Fn(&Tensor, &Tensor, &Tokens) -> Result<Tensor>,
) -> Result<StepLoss> {
    let tokens = Tokens::new(encoder, batch)?;
    let queries = tokens.queries.chunks(PART * 4);
    let count = queries.len();
    let parts: Vec<&[Vec<u32>]> = queries.chain(tokens.candidates.chunks(PART)).collect();
    let groups = spread(parts.len(), workers);
    let encoded = in_threads(groups.iter(), |group| {
        group.iter().map(|part| Ok((*part, encode(&Batch::right_padded(parts[*part])?)?))).collect::<Result<Vec<_>>>()
    })?;
    let mut rows: Vec<(usize, Tensor)> = encoded.into_iter().flatten().collect();
    rows.sort_by_key(|(part, _)| *part);
    let leaves = rows.iter().map(|(_, rows)| Ok(Var::from_tensor(&rows.detach())?)).collect::<Result<Vec<_>>>()?;
    let joined = |leaves: &[Var]| Tensor::cat(&leaves.iter().map(Var::as_tensor).collect::<Vec<_>>(), 0);
    let value = loss(&joined(&leaves[..count])?, &joined(&leaves[count..])?, &tokens)?;
    let to_rows = value.backward()?;
    let stores = in_threads(groups.iter(), |group| {
        let mut stores = Vec::new();
        for part in group {
            if let Some(gradient) = to_rows.get(&leaves[*part]) {
                stores.push((*part, (&rows[*part].1 * gradient.detach())?.sum_all()?.backward()?));
            }
        }
        Ok(stores)
    })?;
    let mut stores: Vec<_> = stores.into_iter().flatten().collect();
    stores.sort_by_key(|(part, _)| *part);
    let mut gradients = Gradients::default();
    for (_, store) in stores {
        gradients.add(encoder.model().vars(), &store, 1.0)?;
    }
    let read = tokens.queries.iter().chain(&tokens.candidates).map(|ids| ids.len() as u64).sum();
    Ok(StepLoss { gradients, loss: f64::from(value.to_scalar::<f32>()?), tokens: read })
}

/// Parts dealt out to threads in turn: sorted parts differ in length, so each thread gets long and short ones.
fn spread(parts: usize, workers: usize) -> Vec<Vec<usize>> {
    let workers = workers.clamp(1, parts.max(1));
    (0..workers).map(|worker| (worker..parts).step_by(workers).collect()).collect()
}

/// Validation questions over all passages of their tenant.
#[derive(Debug, Clone)]
pub struct RankingValidation {
    pub(crate) tenants: Vec<TenantQuestions>,
}

#[derive(Debug, Clone)]
pub(crate) struct TenantQuestions {
    pub passages: Vec<String>,
    /// The first gold rewrite and the raw query, with the places of the passages that answer.
    pub questions: Vec<(String, String, Vec<usize>)>,
}

impl RankingValidation {
    /// The validation split of every tenant.
    #[must_use]
    pub fn new(corpus: &Corpus) -> Self {
        let tenant = |tenant: &crate::corpus::TenantData| {
            let place = |id: &str| tenant.passages.iter().position(|passage| passage.id == id);
            let question = |dialogue: &recast_domain::Dialogue| {
                let right = dialogue.relevant.iter().filter_map(|relevance| place(&relevance.id)).collect();
                (dialogue.gold_rewrites.first().cloned().unwrap_or_default(), dialogue.query.clone(), right)
            };
            TenantQuestions {
                passages: tenant.passages.iter().map(searched_text).collect(),
                questions: tenant.split(Split::Val).map(question).collect(),
            }
        };
        Self { tenants: corpus.tenants.iter().map(tenant).collect() }
    }
}

/// The training of an embedder.
pub struct ContrastiveObjective {
    encoder: Encoder,
    pairs: PairMaker,
    validation: RankingValidation,
    /// One over the temperature.
    scale: f64,
    workers: usize,
}

impl ContrastiveObjective {
    /// A training of the encoder's network with softmax temperature `1 / scale`.
    #[must_use]
    pub fn new(encoder: Encoder, pairs: PairMaker, validation: RankingValidation, scale: f64, workers: usize) -> Self {
        Self { encoder, pairs, validation, scale, workers }
    }

    /// The encoder in training.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

pub(crate) fn batch_of(pairs: &PairMaker, step: u32) -> Result<RankingBatch> {
    pairs
        .batch(u64::from(step))
        .ok_or_else(|| LearnError::Data("no train question has a passage that answers it".into()))
}

impl Objective for ContrastiveObjective {
    fn vars(&self) -> &BTreeMap<String, Var> {
        self.encoder.model().vars()
    }

    fn step(&self, step: u32, _: u32) -> Result<StepLoss> {
        let batch = batch_of(&self.pairs, step)?;
        encode_and_compare(
            &self.encoder,
            &batch,
            self.workers,
            |batch| Ok(self.encoder.pooled(batch)?),
            |queries, candidates, tokens| {
                in_batch_loss(queries, candidates, &tokens.targets, &tokens.also_right, self.scale)
            },
        )
    }

    fn validate(&self) -> Result<BTreeMap<String, f64>> {
        let (mut gold, mut raw) = (Vec::new(), Vec::new());
        for tenant in &self.validation.tenants {
            let passages = matrix(self.encoder.embed(&tenant.passages)?)?;
            let rank = |texts: Vec<&str>| -> Result<Vec<Option<usize>>> {
                let scores = matrix(self.encoder.embed(&texts)?)?.matmul(&passages.t()?)?.to_vec2::<f32>()?;
                let ranks = scores.iter().zip(&tenant.questions).map(|(scores, (_, _, right))| rank_of(scores, right));
                Ok(ranks.collect())
            };
            gold.extend(rank(tenant.questions.iter().map(|(gold, _, _)| gold.as_str()).collect())?);
            raw.extend(rank(tenant.questions.iter().map(|(_, raw, _)| raw.as_str()).collect())?);
        }
        Ok(figures(&gold, &[("mrr_raw", mean_reciprocal_rank(&raw))]))
    }
}

fn matrix(rows: Vec<Vec<f32>>) -> Result<Tensor> {
    let (count, width) = (rows.len(), rows.first().map_or(0, Vec::len));
    Ok(Tensor::from_vec(rows.concat(), (count, width), &Device::Cpu)?)
}

/// Rank of the best right place, from 1; ties count against it.
pub(crate) fn rank_of(scores: &[f32], right: &[usize]) -> Option<usize> {
    let best = right.iter().copied().max_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
    let above = |(place, score): (usize, &f32)| !right.contains(&place) && *score >= scores[best];
    Some(1 + scores.iter().enumerate().filter(|(place, score)| above((*place, score))).count())
}

pub(crate) fn figures(ranks: &[Option<usize>], further: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let within =
        |most: usize| ranks.iter().flatten().filter(|rank| **rank <= most).count() as f64 / ranks.len().max(1) as f64;
    let mrr = mean_reciprocal_rank(ranks);
    let list = [("score", mrr), ("mrr", mrr), ("top1", within(1)), ("recall5", within(5))];
    list.iter().chain(further).map(|(name, figure)| ((*name).to_owned(), *figure)).collect()
}

/// Rows scaled to length one.
///
/// # Errors
/// Where the tensor is no matrix.
pub fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    let length = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    Ok(rows.broadcast_div(&length)?)
}
