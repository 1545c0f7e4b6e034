//! The table of columns. A new column goes to the end of its group; one that changes its meaning raises
//! [`super::SCHEMA_VERSION`].

use super::body::is_empty;
use super::row::{Row, Run};
use super::value::{Column, Kind, Value};

macro_rules! columns {
    ($($name:ident: $kind:ident $unit:literal, $about:literal => $get:expr;)+) => {
        &[$(Column { name: stringify!($name), kind: Kind::$kind, unit: $unit, about: $about, get: {
            fn get<'r>(row: &'r Row<'_>) -> Value<'r> {
                let read: for<'s> fn(&'s Row<'_>) -> Value<'s> = $get;
                read(row)
            }
            get
        } }),+]
    };
}

/// Every column of an export, in order.
pub const COLUMNS: &[Column] = columns! {
    episode_id: Text "", "The episode's id, a UUID of version 7; ids are ordered by time." => |row| row.id().into();
    tenant_id: Word "", "Whose episode it is." => |row| row.meta.tenant.into();
    created_at: Time "UTC", "When the request was answered." => |row| Value::Time(row.meta.created_ms);
    record_version: Int "", "Version of the record in the store." => |row| row.meta.record_version.into();
    request_id: Text "", "The x-request-id of the exchange." => |row| row.body.request.request_id.as_str().into();
    user_id: Text "", "The asker, where the caller named one." => |row| row.body.request.user_id.as_ref().map(|id| id.as_str()).into();
    conversation_id: Text "", "The conversation, where the caller named one." => |row| row.body.request.conversation_id.as_ref().map(|id| id.as_str()).into();
    kb_name: Word "", "The knowledge base that was searched." => |row| row.body.request.kb_name.as_str().into();
    top_k: Int "hits", "Hits that were asked for." => |row| row.body.request.top_k.into();
    score_threshold: Float "0 to 1", "Relevance below which hits are left out." => |row| row.body.request.score_threshold.into();
    tags: Json "", "What the caller marked the request with: an object of texts; null where nothing." => |row| row.body.request.tags.map(|tags| tags.get()).into();
    is_redacted: Bool "", "Whether identifiers were taken out before it was stored; such an episode cannot be replayed on-policy." => |row| row.body.redacted.into();

    query: Text "", "The question as it was typed." => |row| row.body.conversation.query.as_str().into();
    history: Json "", "Earlier turns, oldest first: a list of role (user, assistant) and content." => |row| row.body.conversation.history.get().into();
    history_turns: Int "turns", "How many earlier turns there are." => |row| row.turns.into();
    user_profile: Text "", "What is known of the asker; may be empty." => |row| row.body.conversation.user_profile.as_str().into();
    history_summary: Text "", "A summary of turns that were cut; may be empty." => |row| row.body.conversation.history_summary.as_str().into();
    thought: Text "", "The caller's note on the intent; may be empty." => |row| row.body.conversation.thought.as_str().into();

    rewrite: Text "", "The live rewrite: the query that was searched." => |row| row.body.rewrite.text.as_str().into();
    source: Word "", "Who made it: local, cached, remote, pass_through or given." => |row| row.body.rewrite.source.as_str().into();
    policy: Word "", "The policy that made it." => |row| row.body.rewrite.policy.as_str().into();
    prompt_hash: Word "", "Hash of what the prompt was rendered from; empty where none was." => |row| row.body.prompt_hash.as_str().into();
    prompt_tokens: Int "tokens", "Tokens of the prompt; 0 unless a local model ran." => |row| row.body.rewrite.prompt_tokens.into();
    completion_tokens: Int "tokens", "Tokens that were sampled; 0 unless a local model ran." => |row| row.body.rewrite.token_ids.0.into();
    log_prob_sum: Float "nats", "Natural log-probability of the whole rewrite; null unless a local model ran." => |row| row.body.rewrite.log_probs.0.into();
    temperature: Float "", "Sampling temperature, 0 is greedy; null unless a local model ran." => |row| row.body.rewrite.sampling.as_ref().map(|how| how.temperature).into();
    top_p: Float "0 to 1", "Nucleus mass; null unless a local model ran." => |row| row.body.rewrite.sampling.as_ref().map(|how| how.top_p).into();

    hits: Json "", "What was found, best first: id, doc_id, content, rank, score, reranker_score, legs." => |row| row.body.hits.get().into();
    n_hits: Int "hits", "How many hits there are." => |row| row.hits.count.into();
    top1_id: Text "", "Passage id of the first hit." => |row| row.hits.top.as_ref().map(|hit| hit.id.as_str()).into();
    top1_score: Float "0 to 1", "Calibrated similarity of the first hit." => |row| row.hits.top.as_ref().map(|hit| hit.score).into();
    top1_reranker_score: Float "0 to 1", "Calibrated score of the reranker for the first hit; null where it did not run." => |row| row.hits.top.as_ref().and_then(|hit| hit.reranker_score).into();

    is_degraded: Bool "", "Whether a stage failed or was late." => |row| row.meta.degraded.into();
    degraded: Json "", "Which stages did, a list." => |row| row.body.degraded.get().into();
    rewrite_us: Int "µs", "Wall time of rewriting, queueing included." => |row| row.body.timings.rewrite_us.into();
    embed_us: Int "µs", "Wall time of embedding the query." => |row| row.body.timings.embed_us.into();
    search_us: Int "µs", "Wall time of both legs and fusion." => |row| row.body.timings.search_us.into();
    rerank_us: Int "µs", "Wall time of reranking." => |row| row.body.timings.rerank_us.into();
    total_us: Int "µs", "From the parsed request to the finished list." => |row| row.body.timings.total_us.into();

    experiment: Word "", "The experiment it took part in; null outside one." => |row| row.body.experiment.as_ref().map(|part| part.experiment.as_str()).into();
    experiment_version: Int "", "Version of the experiment's definition." => |row| row.body.experiment.as_ref().map(|part| part.version).into();
    arm: Word "", "The arm that answered; of an interleaved answer, the two joined by +." => |row| row.body.experiment.as_ref().map(|part| part.arm.as_str()).into();

    shadow_state: Word "", "How the paired run of the other arm ended: completed, failed, timed_out, dropped, or pending; null where the episode was not sampled." => |row| row.shadow.as_ref().map(|run| run.raw.state.as_str()).into();
    shadow_reason: Word "", "Why it did not complete; may be empty." => |row| row.shadow.as_ref().map(|run| run.raw.reason.as_str()).into();
    shadow_experiment: Word "", "The experiment that sampled it." => |row| row.shadow.as_ref().map(|run| run.raw.experiment.as_str()).into();
    shadow_version: Int "", "Version of that experiment's definition." => |row| row.shadow.as_ref().map(|run| run.raw.version).into();
    shadow_arm: Word "", "The arm that ran in the shadow." => |row| row.shadow.as_ref().map(|run| run.raw.arm.as_str()).into();
    shadow_sampled_at: Time "UTC", "When the run was sampled." => |row| row.shadow.as_ref().map_or(Value::Null, |run| Value::Time(run.raw.sampled_ms));
    shadow_rewrite: Text "", "The paired rewrite; null unless the run completed." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.rewrite.text.as_str()).into();
    shadow_source: Word "", "Who made it, as source." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.rewrite.source.as_str()).into();
    shadow_policy: Word "", "The policy that made it." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.rewrite.policy.as_str()).into();
    shadow_hits: Json "", "What it found, as hits." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.hits.get()).into();
    shadow_n_hits: Int "hits", "How many hits it found." => |row| answer(row.shadow.as_ref()).map(|(_, hits)| hits.count).into();
    shadow_top1_id: Text "", "Passage id of its first hit." => |row| answer(row.shadow.as_ref()).and_then(|(_, hits)| hits.top.as_ref()).map(|hit| hit.id.as_str()).into();
    shadow_top1_score: Float "0 to 1", "Calibrated similarity of its first hit." => |row| answer(row.shadow.as_ref()).and_then(|(_, hits)| hits.top.as_ref()).map(|hit| hit.score).into();
    shadow_top1_reranker_score: Float "0 to 1", "Calibrated score of the reranker for its first hit." => |row| answer(row.shadow.as_ref()).and_then(|(_, hits)| hits.top.as_ref()).and_then(|hit| hit.reranker_score).into();
    shadow_is_degraded: Bool "", "Whether a stage of it failed or was late." => |row| answer(row.shadow.as_ref()).map(|(one, _)| !is_empty(one.degraded)).into();
    shadow_rewrite_us: Int "µs", "Wall time of its rewriting." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.timings.rewrite_us).into();
    shadow_total_us: Int "µs", "Wall time of the whole run." => |row| answer(row.shadow.as_ref()).map(|(one, _)| one.timings.total_us).into();

    control_state: Word "", "How the second run of the same arm ended; null where there was none." => |row| row.control.as_ref().map(|run| run.raw.state.as_str()).into();
    control_rewrite: Text "", "Its rewrite; null unless the run completed." => |row| answer(row.control.as_ref()).map(|(one, _)| one.rewrite.text.as_str()).into();
    control_n_hits: Int "hits", "How many hits it found." => |row| answer(row.control.as_ref()).map(|(_, hits)| hits.count).into();
    control_top1_score: Float "0 to 1", "Calibrated similarity of its first hit." => |row| answer(row.control.as_ref()).and_then(|(_, hits)| hits.top.as_ref()).map(|hit| hit.score).into();

    judge: Word "", "The judge whose scores are in this row: the one who spoke last." => |row| row.verdicts.judge.into();
    live_overall: Float "1 to 5", "That judge's overall score of the live rewrite." => |row| row.verdicts.live.into();
    shadow_overall: Float "1 to 5", "That judge's overall score of the paired rewrite." => |row| row.verdicts.shadow.into();
    control_overall: Float "1 to 5", "That judge's overall score of the second run of the same arm." => |row| row.verdicts.control.into();
    n_verdicts: Int "verdicts", "Verdicts of all judges about all sides, missing ones included." => |row| row.verdicts.count.into();
    verdicts: Json "", "All of them, oldest first: side, judge, prompt_version, state, overall, reason, created_ms; null where there are none." => |row| row.verdicts.list.as_deref().into();

    reward_total: Float "-1 to 1", "R of the live rewrite against the paired one, the latest; null where it is missing." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.total).into();
    reward_state: Word "", "Whether R is scored, invalid (no rewrite) or missing." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.state.as_ref()).map(|state| state.as_str()).into();
    reward_judge: Float "-1 to 1", "g: what the judge contributes to R." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.judge).into();
    reward_retrieval: Float "-1 to 1", "r: what retrieval contributes to R." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.retrieval).into();
    reward_bonus: Float "", "b: the bonus in R." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.bonus).into();
    reward_quality: Float "0 to 1", "q of the live retrieval." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.quality_student).into();
    reward_quality_baseline: Float "0 to 1", "q of the retrieval it is compared with." => |row| row.rewards.live.as_ref().and_then(|(_, parts)| parts.quality_baseline).into();
    reward_version: Int "", "Version of the reward's formulas." => |row| row.rewards.live.as_ref().map(|(raw, _)| raw.reward_version).into();
    reward_weights: Word "", "Hash of the weights; rewards of two weights are not compared." => |row| row.rewards.live.as_ref().map(|(raw, _)| raw.weights_hash.as_str()).into();
    shadow_reward_total: Float "-1 to 1", "R of the paired rewrite against the live one, the latest." => |row| row.rewards.shadow_total.into();
    n_rewards: Int "rewards", "Rewards of all sides under all weights." => |row| row.rewards.count.into();
    rewards: Json "", "All of them, oldest first: side, reward_version, weights_hash, created_ms, reward; null where there are none." => |row| row.rewards.list.as_deref().into();

    n_feedback: Int "events", "Feedback events about this answer." => |row| row.feedback.count.into();
    thumbs_up: Int "events", "Thumbs up." => |row| row.feedback.up.into();
    thumbs_down: Int "events", "Thumbs down." => |row| row.feedback.down.into();
    feedback_score: Float "0 to 1", "Mean of the scores that people gave; null where none did." => |row| row.feedback.score_mean().into();
    clicks: Int "events", "Passages of the answer that were opened." => |row| row.feedback.clicks.into();
    comments: Int "events", "Comments in words; the words are in feedback." => |row| row.feedback.comments.into();
    preferred: Int "events", "Comparisons in which this answer was preferred." => |row| row.feedback.preferred.into();
    not_preferred: Int "events", "Comparisons in which the other answer was preferred." => |row| row.feedback.not_preferred.into();
    feedback: Json "", "All events, oldest first: created_ms and signal; null where there are none." => |row| row.feedback.list.as_deref().into();

    n_labels: Int "labels", "Labels that people wrote down about this answer." => |row| row.labels.count.into();
    gold_rewrite: Text "", "The rewrite as a person would have it, the latest; null where nobody wrote one." => |row| row.labels.gold.as_deref().into();
    relevant: Json "", "Ids of the passages that answer, by the person who spoke last; null where nobody named any." => |row| row.labels.relevant_list.as_deref().into();
    label_score: Float "0 to 1", "Mean of the scores of labels; null where there are none." => |row| row.labels.score_mean().into();
    labels: Json "", "All labels, oldest first: author, kind, value, created_ms; null where there are none." => |row| row.labels.list.as_deref().into();
};

/// The answer of a run, where it completed.
fn answer<'r, 'a>(run: Option<&'r Run<'a>>) -> Option<&'r (super::body::Answer<'a>, super::body::HitList<'a>)> {
    run.and_then(|run| run.answer.as_ref())
}

/// The table of columns as Markdown, as `docs/EPISODES.md` holds it.
#[must_use]
pub fn dictionary() -> String {
    let mut table = String::from("| column | type | unit | what it says |\n|---|---|---|---|\n");
    for Column { name, kind, unit, about, .. } in COLUMNS {
        table.push_str(&format!("| `{name}` | {} | {unit} | {about} |\n", kind.name()));
    }
    table
}
