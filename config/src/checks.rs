use recast_domain::TenantId;

use crate::layers::Problem;
use crate::{EmbedderKind, JudgeKind, LearnerSettings, RerankerKind, RewriterKind, Settings, StoreKind};

/// Values that have the right type but make no sense, alone or together.
pub(crate) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut check = |ok: bool, key: &str, message: &str| {
        if !ok {
            found.push(Problem::new(key, message));
        }
    };

    let server = &settings.server;
    check(server.max_connections > 0, "server.max_connections", "must be at least 1");
    check(server.header_timeout_ms > 0, "server.header_timeout_ms", "must be at least 1");
    check(server.body_timeout_ms > 0, "server.body_timeout_ms", "must be at least 1");
    check(server.body_limit_bytes >= 1024, "server.body_limit_bytes", "must be at least 1024");

    let limits = &settings.limits;
    check(limits.query_chars > 0, "limits.query_chars", "must be at least 1");
    check(limits.top_k > 0, "limits.top_k", "must be at least 1");

    let deadlines = &settings.deadlines;
    check(deadlines.request_ms > 0, "deadlines.request_ms", "must be at least 1");
    check(deadlines.retrieval_ms > 0, "deadlines.retrieval_ms", "must be at least 1");

    let admission = &settings.admission;
    check(admission.max_in_flight > 0, "admission.max_in_flight", "must be at least 1");
    check(admission.tenant_requests_per_second > 0, "admission.tenant_requests_per_second", "must be at least 1");
    check(admission.tenant_burst > 0, "admission.tenant_burst", "must be at least 1");

    check(settings.tenants.reload_seconds > 0, "tenants.reload_seconds", "must be at least 1");

    let rewriter = &settings.rewriter;
    check((0.0..=2.0).contains(&rewriter.temperature), "rewriter.temperature", "must be between 0 and 2");
    check(rewriter.top_p > 0.0 && rewriter.top_p <= 1.0, "rewriter.top_p", "must be above 0 and at most 1");
    check(rewriter.max_new_tokens > 0, "rewriter.max_new_tokens", "must be at least 1");
    check(rewriter.queue > 0, "rewriter.queue", "must be at least 1");
    let remote = &rewriter.remote.url;
    check(
        rewriter.kind != RewriterKind::Remote || !remote.is_empty(),
        "rewriter.remote.url",
        "is empty, and rewriter.kind is remote: give the service's address, for example http://host:7861",
    );
    check(remote.is_empty() || is_http(remote), "rewriter.remote.url", "must start with http:// or https://");

    let retrieval = &settings.retrieval;
    check(
        (0.0..=1.0).contains(&retrieval.score_threshold),
        "retrieval.score_threshold",
        "must be between 0 and 1: scores read as probabilities",
    );
    check(retrieval.candidates_per_leg > 0, "retrieval.candidates_per_leg", "must be at least 1");
    check(retrieval.top_k > 0 && retrieval.top_k <= limits.top_k, "retrieval.top_k", "must be 1 to limits.top_k");
    check(retrieval.rrf_k > 0.0, "retrieval.rrf_k", "must be above 0");
    check(retrieval.chunk_tokens > 0, "retrieval.chunk_tokens", "must be at least 1");
    check(
        retrieval.chunk_overlap < retrieval.chunk_tokens,
        "retrieval.chunk_overlap",
        "must be smaller than retrieval.chunk_tokens",
    );
    check(retrieval.flush_seconds > 0, "retrieval.flush_seconds", "must be at least 1");
    check(
        retrieval.store != StoreKind::Qdrant || is_http(&retrieval.qdrant.url),
        "retrieval.qdrant.url",
        "must start with http:// or https://",
    );

    let embedder = &settings.embedder;
    check(embedder.batch > 0, "embedder.batch", "must be at least 1");
    check(
        embedder.kind == EmbedderKind::None || !embedder.model.is_empty(),
        "embedder.model",
        "is empty: name a model, or set embedder.kind = \"none\"",
    );
    check(
        embedder.kind != EmbedderKind::Openai || is_http(&embedder.url),
        "embedder.url",
        "must start with http:// or https:// when embedder.kind is openai",
    );
    check(
        embedder.kind != EmbedderKind::Openai || embedder.dimension > 0,
        "embedder.dimension",
        "must be given when embedder.kind is openai",
    );

    let reranker = &settings.reranker;
    check(reranker.batch > 0, "reranker.batch", "must be at least 1");
    check(
        !matches!(reranker.kind, RerankerKind::Local | RerankerKind::Fastembed) || !reranker.model.is_empty(),
        "reranker.model",
        "is empty: name a model, or set reranker.kind = \"none\"",
    );
    check(
        reranker.kind != RerankerKind::Http || is_http(&reranker.url),
        "reranker.url",
        "must start with http:// or https:// when reranker.kind is http",
    );

    check(settings.episodes.batch_max > 0, "episodes.batch_max", "must be at least 1");
    let data = &settings.datasets;
    check((1..=36_500).contains(&data.days_back), "datasets.days_back", "must be from 1 to 36500");
    let (min, max) = (data.query_min_chars, data.query_max_chars);
    check(min <= max, "datasets.query_min_chars", "must not be above datasets.query_max_chars");
    let (min, max) = (data.rewrite_min_chars, data.rewrite_max_chars);
    check(min <= max, "datasets.rewrite_min_chars", "must not be above datasets.rewrite_max_chars");
    check(data.rewrite_max_growth > 0, "datasets.rewrite_max_growth", "must be at least 1");
    let share = |share: f64| (0.0..=1.0).contains(&share);
    check(share(data.import_min_top1), "datasets.import_min_top1", "must be from 0 to 1");
    check(share(data.synonym_share), "datasets.synonym_share", "must be from 0 to 1");
    let held_out = share(data.val_share) && share(data.test_share) && data.val_share + data.test_share < 1.0;
    check(held_out, "datasets.val_share", "must leave something for train together with datasets.test_share");
    check(settings.episodes.max_bytes >= 1 << 20, "episodes.max_bytes", "must be at least 1048576");

    let judge = &settings.judge;
    let asks = judge.kind == JudgeKind::Openai;
    check(!asks || is_http(&judge.url), "judge.url", "must start with http:// or https:// when judge.kind is openai");
    check(!asks || !judge.model.is_empty(), "judge.model", "is empty, and judge.kind is openai: name the model");
    check((0.0..=1.0).contains(&judge.sample_rate), "judge.sample_rate", "must be between 0 and 1");
    check((0.0..=1.0).contains(&judge.canary_rate), "judge.canary_rate", "must be between 0 and 1");
    check(judge.in_flight > 0, "judge.in_flight", "must be at least 1");
    check(judge.rpm > 0, "judge.rpm", "must be at least 1");
    check(judge.tpm > 0, "judge.tpm", "must be at least 1");
    for (key, amount) in [
        ("judge.daily_cost", judge.daily_cost),
        ("judge.price_in", judge.price_in),
        ("judge.price_out", judge.price_out),
    ] {
        check(amount.is_finite() && amount >= 0.0, key, "must be 0 or more");
    }
    check(judge.reply_tokens > 0, "judge.reply_tokens", "must be at least 1");
    check(judge.timeout_ms > 0, "judge.timeout_ms", "must be at least 1");
    check(judge.group_ms > 0, "judge.group_ms", "must be at least 1");

    let reward = &settings.reward;
    for (key, number) in [
        ("reward.judge", reward.judge),
        ("reward.retrieval", reward.retrieval),
        ("reward.bonus", reward.bonus),
        ("reward.judge_slope", reward.judge_slope),
        ("reward.retrieval_slope", reward.retrieval_slope),
        ("reward.gap_max", reward.gap_max),
        ("reward.gap_slope", reward.gap_slope),
    ] {
        check(number.is_finite() && number >= 0.0, key, "must be 0 or more");
    }
    let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
    check(finite(&reward.quality), "reward.quality", "must hold three numbers");
    let steps = &reward.bonus_steps;
    check(
        steps.iter().all(|(above, bonus)| finite(&[*above, *bonus])) && steps.is_sorted_by(|a, b| a.0 > b.0),
        "reward.bonus_steps",
        "must be pairs [above, bonus], the highest first",
    );
    check(reward.bonus_floor.is_finite(), "reward.bonus_floor", "must be a number");
    check((-1.0..=1.0).contains(&reward.invalid), "reward.invalid", "must be between -1 and 1");
    let scoring = &settings.scoring;
    check((1..=100_000).contains(&scoring.queue), "scoring.queue", "must be 1 to 100000");
    check(scoring.concurrency > 0, "scoring.concurrency", "must be at least 1");
    check(scoring.timeout_ms > 0, "scoring.timeout_ms", "must be at least 1");
    let policies = &settings.policies;
    check(policies.poll_ms >= 10, "policies.poll_ms", "must be at least 10");
    check((0.0..=1.0).contains(&policies.sample_rate), "policies.sample_rate", "must be between 0 and 1");
    check(policies.queue > 0, "policies.queue", "must be at least 1");
    learner(&settings.learner, &mut check);

    check(settings.experiments.guard_seconds > 0, "experiments.guard_seconds", "must be at least 1");
    check(settings.experiments.guard_window > 0, "experiments.guard_window", "must be at least 1");
    let shadow = &settings.shadow;
    check(shadow.queue > 0, "shadow.queue", "must be at least 1");
    check(shadow.concurrency > 0, "shadow.concurrency", "must be at least 1");
    check(shadow.deadline_ms > 0, "shadow.deadline_ms", "must be at least 1");
    let remote = &shadow.remote.url;
    check(remote.is_empty() || is_http(remote), "shadow.remote.url", "must start with http:// or https://");
    check(shadow.remote.timeout_ms > 0, "shadow.remote.timeout_ms", "must be at least 1");
    check(shadow.remote.response_bytes > 0, "shadow.remote.response_bytes", "must be at least 1");
    found
}

fn learner(learner: &LearnerSettings, check: &mut impl FnMut(bool, &str, &str)) {
    let gateway = &learner.gateway;
    check(gateway.is_empty() || is_http(gateway), "learner.gateway", "must start with http:// or https://");
    let tenant = &learner.tenant;
    check(tenant.is_empty() || tenant.parse::<TenantId>().is_ok(), "learner.tenant", "must be a tenant's id, or empty");
    check(learner.steps > 0, "learner.steps", "must be at least 1");
    check(learner.every > 0, "learner.every", "must be at least 1");
    check(learner.questions > 0, "learner.questions", "must be at least 1");
    check(learner.group > 0, "learner.group", "must be at least 1");
    check((1..=256).contains(&learner.rank), "learner.rank", "must be 1 to 256");
    for (key, number) in [
        ("learner.learning_rate", learner.learning_rate),
        ("learner.kl", learner.kl),
        ("learner.entropy", learner.entropy),
    ] {
        check(number.is_finite() && number >= 0.0, key, "must be 0 or more");
    }
    check(learner.min_questions >= 2, "learner.min_questions", "must be at least 2");
    check(
        learner.max_questions >= learner.min_questions,
        "learner.max_questions",
        "must be at least learner.min_questions",
    );
    check(learner.memory_mb > 0, "learner.memory_mb", "must be at least 1");
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
