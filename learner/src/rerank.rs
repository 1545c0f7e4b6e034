//! Training of the reranker: late interaction, where every token of the question looks for its best match among the
//! passage's tokens.
use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use recast_model::{Encoder, max_sim};

use crate::contrastive::{RankingValidation, batch_of, encode_and_compare, figures, rank_of, ranking_loss};
use crate::error::Result;
use crate::lexical::LexicalIndex;
use crate::pairs::PairMaker;
use crate::trainer::{Objective, StepLoss};
use crate::validate::mean_reciprocal_rank;

/// Mean over a question's tokens of the best scalar product with a passage's tokens, `[questions, passages]`, with
/// gradient to both. `queries` and `passages` hold the token vectors of all texts one behind the other, `[tokens, d]`;
/// the lengths say where each text ends.
///
/// # Errors
/// Where the lengths do not add up to the rows.
pub fn late_interaction_scores(
    queries: &Tensor,
    query_lengths: &[usize],
    passages: &Tensor,
    passage_lengths: &[usize],
) -> Result<Tensor> {
    let ((query_rows, width), (passage_rows, _)) = (queries.dims2()?, passages.dims2()?);
    let products = queries.detach().matmul(&passages.detach().t()?)?.flatten_all()?.to_vec1::<f32>()?;
    // only the best match of a pair has a gradient, so the others are never made a part of the graph
    let mut best = Vec::with_capacity(query_rows * passage_lengths.len());
    for row in products.chunks_exact(passage_rows.max(1)) {
        let mut start = 0;
        for length in passage_lengths {
            let part = &row[start..start + length];
            let most = part.iter().enumerate().fold(0, |most, (i, x)| if *x > part[most] { i } else { most });
            best.push((start + most) as u32);
            start += length;
        }
    }
    let count = passage_lengths.len();
    let index = Tensor::from_vec(best, query_rows * count, queries.device())?;
    let matches = passages.index_select(&index, 0)?.reshape((query_rows, count, width))?;
    let sims = matches.matmul(&queries.unsqueeze(2)?)?.squeeze(2)?;
    let mut shares = vec![0f32; query_lengths.len() * query_rows];
    let mut start = 0;
    for (row, length) in query_lengths.iter().enumerate() {
        let begin = row * query_rows + start;
        shares[begin..begin + length].fill(1.0 / *length as f32);
        start += length;
    }
    Ok(Tensor::from_vec(shares, (query_lengths.len(), query_rows), queries.device())?.matmul(&sims)?)
}

/// Passages that the lexical search hands to the reranker in validation.
const CANDIDATES: usize = 20;

/// The training of a reranker.
pub struct LateObjective {
    encoder: Encoder,
    pairs: PairMaker,
    validation: RankingValidation,
    /// By tenant and question: the candidates of the lexical search, the best first.
    candidates: Vec<Vec<Vec<usize>>>,
    /// One over the temperature.
    scale: f64,
    workers: usize,
}

impl LateObjective {
    /// A training of the encoder's network with softmax temperature `1 / scale`.
    #[must_use]
    pub fn new(encoder: Encoder, pairs: PairMaker, validation: RankingValidation, scale: f64, workers: usize) -> Self {
        let candidates = validation.tenants.iter().map(|tenant| {
            let index = LexicalIndex::new(&tenant.passages);
            tenant.questions.iter().map(|(gold, _, _)| index.search(gold, CANDIDATES)).collect()
        });
        let candidates = candidates.collect();
        Self { encoder, pairs, validation, candidates, scale, workers }
    }

    /// The encoder in training.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

impl Objective for LateObjective {
    fn vars(&self) -> &BTreeMap<String, Var> {
        self.encoder.model().vars()
    }

    fn step(&self, step: u32, _: u32) -> Result<StepLoss> {
        let batch = batch_of(&self.pairs, step)?;
        encode_and_compare(
            &self.encoder,
            &batch,
            self.workers,
            |batch| Ok(self.encoder.token_rows(batch)?),
            |queries, candidates, tokens| {
                let lengths = |texts: &[Vec<u32>]| texts.iter().map(Vec::len).collect::<Vec<_>>();
                let (of_queries, of_candidates) = (lengths(&tokens.queries), lengths(&tokens.candidates));
                let scores = late_interaction_scores(queries, &of_queries, candidates, &of_candidates)?;
                ranking_loss(&scores, &tokens.targets, &tokens.also_right, self.scale)
            },
        )
    }

    fn validate(&self) -> Result<BTreeMap<String, f64>> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (tenant, candidates) in self.validation.tenants.iter().zip(&self.candidates) {
            let passages = self.encoder.token_vectors(&tenant.passages)?;
            let golds: Vec<&str> = tenant.questions.iter().map(|(gold, _, _)| gold.as_str()).collect();
            let queries = self.encoder.token_vectors(&golds)?;
            for ((query, candidates), (_, _, right)) in queries.iter().zip(candidates).zip(&tenant.questions) {
                before.push(candidates.iter().position(|place| right.contains(place)).map(|place| place + 1));
                let scores: Vec<f32> = candidates.iter().map(|place| max_sim(query, &passages[*place])).collect();
                let right: Vec<usize> = (0..candidates.len()).filter(|i| right.contains(&candidates[*i])).collect();
                after.push(rank_of(&scores, &right));
            }
        }
        Ok(figures(&after, &[("mrr_lexical", mean_reciprocal_rank(&before))]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn scores_are_those_of_the_ranking_at_work() {
        let rows = |count: usize, seed: f32| {
            let numbers: Vec<f32> = (0..count * 4).map(|i| (i as f32 * 1.7 + seed).sin()).collect();
            Var::from_tensor(&Tensor::from_vec(numbers, (count, 4), &Device::Cpu).unwrap()).unwrap()
        };
        let (queries, passages) = (rows(5, 0.3), rows(9, 1.1));
        let (query_lengths, passage_lengths) = ([2, 3], [4, 1, 4]);
        let scores = late_interaction_scores(&queries, &query_lengths, &passages, &passage_lengths).unwrap();
        let vectors = |var: &Var, start: usize, length: usize| recast_model::TokenVectors {
            dimension: 4,
            numbers: var.narrow(0, start, length).unwrap().flatten_all().unwrap().to_vec1().unwrap(),
        };
        let found = scores.to_vec2::<f32>().unwrap();
        let (mut query_start, mut largest) = (0, 0f32);
        for (i, query_length) in query_lengths.iter().enumerate() {
            let mut passage_start = 0;
            for (j, passage_length) in passage_lengths.iter().enumerate() {
                let query = vectors(&queries, query_start, *query_length);
                let expected = max_sim(&query, &vectors(&passages, passage_start, *passage_length));
                largest = largest.max((found[i][j] - expected).abs());
                passage_start += passage_length;
            }
            query_start += query_length;
        }
        assert!(largest < 1e-6, "differs by {largest}");
        let gradients = scores.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&queries).is_some() && gradients.get(&passages).is_some());
    }
}
