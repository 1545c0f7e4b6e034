//! Made-up pairs, the same for the tests and for the page that is only looked at.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_experiments::report::{Accounting, ArmFacts, ArmFeedback, HitFacts, LabelFacts, Pair, ReportInput};
use recast_experiments::{Definition, Guardrails, Kind};

const QUESTIONS: [(&str, &str, &str, &str, &str); 5] = [
    ("fivedoctors", "general", "胶原蛋白怎么吃", "胶原蛋白 怎么吃", "胶原蛋白肽 服用方法 推荐用量 适用人群"),
    ("fivedoctors", "safety", "孕妇能喝吗", "孕妇能喝吗", "胶原蛋白肽 孕妇禁忌 孕期服用安全性"),
    ("chengla", "general", "考公什么时候开始报名", "考公 报名", "国家公务员考试 报名时间 报名入口"),
    (
        "superstream",
        "compliance",
        "SMSF 贡献上限 2024 多少",
        "SMSF 上限",
        "self-managed super fund concessional contribution cap 2024-25 养老金",
    ),
    (
        "superstream",
        "technical",
        "ATO rejected my USM message, why?",
        "ATO rejected message",
        "ATO SuperStream USM error codes member registration rejection",
    ),
];

/// `n` pairs whose treatment scores are higher by `gain` on average, from a seed.
pub fn pairs(n: usize, gain: f64, seed: u64) -> Vec<Pair> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|index| {
            let (tenant, query_type, query, short, long) = QUESTIONS[rng.random_range(0..QUESTIONS.len())];
            let hard = rng.random_range(0.25..0.75);
            let live = answer(&mut rng, short, hard, 90.0);
            let other = answer(&mut rng, long, hard + gain, 240.0);
            Pair {
                episode: format!("episode-{index:05}"),
                tenant: tenant.to_owned(),
                query_type: Some(query_type.to_owned()),
                query: query.to_owned(),
                judge: (index % 4 != 0).then(|| (judged(&live), judged(&other))),
                live,
                other,
                at_ms: i64::try_from(index).unwrap_or(0) * 1000,
            }
        })
        .collect()
}

fn answer(rng: &mut ChaCha8Rng, rewrite: &str, centre: f64, ms: f64) -> ArmFacts {
    let top = (centre + rng.random_range(-0.25..0.25)).clamp(0.0, 1.0);
    let scores: Vec<f64> = (0..5).map(|rank| (top - 0.09 * f64::from(rank)).max(0.0)).collect();
    let rewrite_ms = ms * rng.random_range(0.7..1.6);
    let hits = (0..5).map(|rank| HitFacts {
        id: format!("p{}", rng.random_range(100..999)),
        text: format!("{rewrite}：说明书第 {} 条, dosage and storage", rank + 1),
    });
    ArmFacts {
        hits: hits.collect(),
        degraded: rng.random_range(0..100) == 0,
        rewrite: rewrite.to_owned(),
        rewrite_ms,
        total_ms: rewrite_ms + rng.random_range(20.0..60.0),
        labels: Some(LabelFacts {
            top1: f64::from(u8::from(top > 0.5)),
            recall_at_5: if top > 0.35 { 1.0 } else { 0.5 },
            ndcg_at_10: top,
        }),
        scores,
    }
}

/// `n` pairs of one arm with itself: the second answer differs by a little.
fn repeated(n: usize, seed: u64) -> Vec<Pair> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pairs = pairs(n, 0.0, seed);
    for pair in &mut pairs {
        let shift = rng.random_range(-0.05..0.05);
        pair.other = pair.live.clone();
        pair.other.rewrite_ms *= rng.random_range(0.9..1.1);
        pair.other.total_ms = pair.other.rewrite_ms + rng.random_range(20.0..60.0);
        pair.other.scores.iter_mut().for_each(|score| *score = (*score + shift).clamp(0.0, 1.0));
        pair.judge = pair.judge.map(|(judge, _)| (judge, judge));
    }
    pairs
}

/// A judge that only looks at the first score.
fn judged(facts: &ArmFacts) -> f64 {
    (1.0 + 4.0 * facts.scores[0] * 4.0).round() / 4.0
}

/// A shadow experiment that has run for a while.
pub fn input(n: usize, gain: f64) -> ReportInput {
    let mut definition = Definition::between("local-or-teacher", Kind::Shadow, "local", "teacher");
    definition.tenants = ["fivedoctors", "chengla", "superstream"].map(str::to_owned).to_vec();
    definition.control_rate = 0.2;
    definition.guardrails = Guardrails {
        p99_rewrite_ms: Some(800.0),
        empty_recall_rate: Some(0.1),
        degraded_rate: Some(0.05),
        length_ratio: Some(6.0),
    };
    let mut input = ReportInput::new(definition, 3);
    input.pairs = pairs(n, gain, 7);
    input.controls = repeated(n / 4, 8);
    input.accounting = accounting(n);
    input.control_accounting = accounting(n / 4);
    input.feedback =
        vec![ArmFeedback { arm: "local".to_owned(), up: 31, down: 9, clicks: 120, ..ArmFeedback::default() }];
    input
}

fn accounting(completed: usize) -> Accounting {
    let completed = u64::try_from(completed).unwrap_or(0);
    let mut one = Accounting { completed, timed_out: completed / 40, pending: 2, ..Accounting::default() };
    one.failed.insert("rewriter_failed".to_owned(), completed / 60);
    one.dropped.insert("queue_full".to_owned(), completed / 25);
    one.sampled = one.sum();
    one
}
