//! nDCG, reciprocal rank, average precision, precision, recall: one query at a time.
//!
//! Conventions of `trec_eval`: linear gains, ties broken by document id descending, precision divides by k even where
//! fewer were returned, a query without results counts 0, means are over the queries that have labels.
use std::collections::HashMap;

/// Grades by document id; 0 and absent mean not relevant.
pub type Grades = HashMap<String, u32>;

/// Orders a run as `trec_eval` does: score descending, then document id descending.
#[must_use]
pub fn trec_order(run: &[(String, f64)]) -> Vec<String> {
    let mut sorted: Vec<&(String, f64)> = run.iter().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    sorted.into_iter().map(|(id, _)| id.clone()).collect()
}

fn grade(grades: &Grades, id: &str) -> u32 {
    grades.get(id).copied().unwrap_or_default()
}

fn relevant_total(grades: &Grades) -> usize {
    grades.values().filter(|grade| **grade > 0).count()
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn found<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> usize {
    ranking.iter().take(k).filter(|id| grade(grades, id.as_ref()) > 0).count()
}

/// Share of the relevant documents among the first `k`.
#[must_use]
pub fn recall<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> f64 {
    ratio(found(ranking, grades, k), relevant_total(grades))
}

/// Share of relevant documents among the first `k` places.
#[must_use]
pub fn precision<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> f64 {
    ratio(found(ranking, grades, k), k)
}

/// 1 where one of the first `k` is relevant, else 0. With k = 1 this is top-1.
#[must_use]
pub fn success<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> f64 {
    if found(ranking, grades, k) > 0 { 1.0 } else { 0.0 }
}

/// 1 / rank of the first relevant document, 0 where there is none.
#[must_use]
pub fn reciprocal_rank<S: AsRef<str>>(ranking: &[S], grades: &Grades) -> f64 {
    let first = ranking.iter().position(|id| grade(grades, id.as_ref()) > 0);
    first.map_or(0.0, |at| ratio(1, at + 1))
}

/// Mean, over all relevant documents, of the precision at their place; 0 for one beyond `k`.
#[must_use]
pub fn average_precision<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> f64 {
    let mut hits = 0;
    let mut sum = 0.0;
    for (at, id) in ranking.iter().take(k).enumerate() {
        if grade(grades, id.as_ref()) > 0 {
            hits += 1;
            sum += ratio(hits, at + 1);
        }
    }
    let total = relevant_total(grades);
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let mean = if total == 0 { 0.0 } else { sum / total as f64 };
    mean
}

/// DCG(k) / ideal DCG(k) with DCG = sum of grade / log2(rank + 1) (Järvelin and Kekäläinen, 2002).
#[must_use]
pub fn ndcg<S: AsRef<str>>(ranking: &[S], grades: &Grades, k: usize) -> f64 {
    let gains = ranking.iter().take(k).map(|id| grade(grades, id.as_ref()));
    let mut ideal: Vec<u32> = grades.values().copied().collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let best = dcg(ideal.into_iter().take(k));
    if best > 0.0 { dcg(gains) / best } else { 0.0 }
}

fn dcg(gains: impl Iterator<Item = u32>) -> f64 {
    (2_u32..).zip(gains).map(|(discount, gain)| f64::from(gain) / f64::from(discount).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn close(name: &str, ours: f64, theirs: &Value) {
        let theirs = theirs.as_f64().unwrap();
        assert!((ours - theirs).abs() < 1e-9, "{name}: {ours} is not {theirs}");
    }

    #[test]
    fn every_golden_value_is_met() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/ir_vectors.json")).unwrap();
        let mut checked = 0;
        for case in golden["cases"].as_array().unwrap() {
            let level = case["relevance_level"].as_u64().unwrap_or(1);
            for (query, expected) in case["pytrec_eval"]["per_query"].as_object().unwrap() {
                let grades: Grades = case["qrels"][query]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(id, grade)| (id.clone(), grade.as_i64().unwrap().max(0) as u32))
                    .collect();
                // A relevance level above 1 counts lower grades as not relevant, except for gains.
                let binary: Grades = grades
                    .iter()
                    .map(|(id, grade)| (id.clone(), if u64::from(*grade) >= level { *grade } else { 0 }))
                    .collect();
                let run: Vec<(String, f64)> = case["run"][query]
                    .as_object()
                    .map(|run| run.iter().map(|(id, score)| (id.clone(), score.as_f64().unwrap())).collect())
                    .unwrap_or_default();
                let ranking = trec_order(&run);
                if let Some(order) = case["trec_eval_order"][query].as_array() {
                    assert_eq!(&ranking, &order.iter().map(|id| id.as_str().unwrap().to_owned()).collect::<Vec<_>>());
                }
                for (name, value) in expected.as_object().unwrap() {
                    let k = name.rsplit('_').next().and_then(|k| k.parse().ok()).unwrap_or(usize::MAX);
                    let ours = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
                        "recip_rank" => reciprocal_rank(&ranking, &binary),
                        "P_" => precision(&ranking, &binary, k),
                        "recall_" => recall(&ranking, &binary, k),
                        "set_recall" => recall(&ranking, &binary, usize::MAX),
                        "success_" => success(&ranking, &binary, k),
                        "map" | "map_cut_" => average_precision(&ranking, &binary, k),
                        "ndcg" | "ndcg_cut_" => ndcg(&ranking, &grades, k),
                        _ => continue,
                    };
                    close(&format!("{} {query} {name}", case["id"]), ours, value);
                    checked += 1;
                }
            }
        }
        assert!(checked > 1500, "{checked}");
    }

    #[test]
    fn a_query_without_results_counts_zero() {
        let grades: Grades = [("a".to_owned(), 1)].into();
        let none: [&str; 0] = [];
        assert_eq!(ndcg(&none, &grades, 10), 0.0);
        assert_eq!(reciprocal_rank(&none, &grades), 0.0);
        assert_eq!(recall(&["a"], &Grades::new(), 10), 0.0);
    }
}
