//! A judge behind a chat service of OpenAI's kind.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join_all, try_join};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recast_config::{JudgeLanguage, JudgeMode, JudgeSettings};
use recast_domain::{Conversation, TenantId};
use tokio::time::Instant;

use crate::budget::{Bounds, Budget};
use crate::cache::{Replies, VerdictKey};
use crate::canary::CanaryRules;
use crate::chat::{Chat, Question, Unanswered};
use crate::group::{Distinct, Opinion, flips};
use crate::list::{Listing, read_list};
use crate::prompt::{PROMPT_VERSION, SCHEMA_VERSION, context, list_prompt, list_schema, one_schema, rubric_prompt};
use crate::provider::{Capabilities, TEMPERATURE};
use crate::transport::{HttpTransport, Transport};
use crate::verdict::one_scores;
use crate::{
    Candidate, Flips, GroupVerdict, Judge, JudgeBooks, JudgeError, JudgeItem, RewriteRules, RubricVerdict, Verdict,
    VerdictFault, invalid_rewrite,
};

/// Tokens on top of the reply's own for each entry of a list.
const ENTRY_TOKENS: u32 = 150;

/// Asks a model for scores.
///
/// In rubric mode each distinct rewrite is a call of its own, and a rewrite that was judged before is not asked about
/// again. In listwise mode one call has all of them under meaningless names, and a second call has them in the reverse
/// order; scores are the mean of both, and without both there is none. Canaries ride on groups in both modes.
pub struct OpenAiJudge {
    id: String,
    chat: Chat,
    mode: JudgeMode,
    language: JudgeLanguage,
    reply_tokens: u32,
    group_time: Duration,
    canaries: CanaryRules,
    rules: RewriteRules,
    replies: Replies,
    canaries_scored: AtomicU64,
}

impl OpenAiJudge {
    /// A client for the service in the settings; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is no http or https URL.
    pub fn new(settings: &JudgeSettings, books: Option<Arc<dyn JudgeBooks>>) -> Result<Self, JudgeError> {
        let transport = HttpTransport::new(&settings.url, settings.api_key.clone())?;
        Ok(Self::over(Arc::new(transport), settings, books))
    }

    /// The same over any transport.
    #[must_use]
    pub fn over(transport: Arc<dyn Transport>, settings: &JudgeSettings, books: Option<Arc<dyn JudgeBooks>>) -> Self {
        let bounds = Bounds {
            rpm: settings.rpm,
            tpm: settings.tpm,
            daily_cost: settings.daily_cost,
            price_in: settings.price_in,
            price_out: settings.price_out,
        };
        let id = format!(
            "openai:{:?}:{}:{:?}:{:?}:p{PROMPT_VERSION}.{SCHEMA_VERSION}",
            settings.provider, settings.model, settings.mode, settings.language
        );
        let chat = Chat::new(
            transport,
            settings.model.clone(),
            Capabilities::of(settings.provider),
            Duration::from_millis(settings.timeout_ms),
            settings.in_flight,
            Budget::new(bounds, books.clone(), Instant::now()),
        );
        Self {
            id: id.to_lowercase(),
            chat,
            mode: settings.mode,
            language: settings.language,
            reply_tokens: settings.reply_tokens,
            group_time: Duration::from_millis(settings.group_ms),
            canaries: CanaryRules { rate: settings.canary_rate, ..CanaryRules::default() },
            rules: RewriteRules::default(),
            replies: Replies::new(settings.cache_entries, Duration::from_secs(settings.cache_seconds), books),
            canaries_scored: AtomicU64::new(0),
        }
    }

    /// Batches that were thrown away since the start because their canary scored high.
    #[must_use]
    pub fn canaries_scored(&self) -> u64 {
        self.canaries_scored.load(Ordering::Relaxed)
    }

    /// What judging has cost this tenant today (UTC), running calls at their estimate; in the currency of the prices.
    ///
    /// # Errors
    /// When what an earlier process spent cannot be read.
    pub async fn spent_today(&self, tenant: &TenantId) -> Result<f64, VerdictFault> {
        self.chat.budget.spent(tenant).await
    }

    /// The key of a question about these texts.
    fn key(&self, item: &JudgeItem, texts: &[&str], part: &str) -> VerdictKey {
        let temperature = if self.chat.capabilities.temperature { TEMPERATURE.to_string() } else { String::new() };
        let (context, repeat) = (context(item).to_string(), item.repeat.to_string());
        let mut parts = vec![&self.id, &temperature, item.tenant.as_str(), &item.domain, &context, &repeat, part];
        parts.extend(texts);
        VerdictKey::of(&parts)
    }

    /// The scores of one text and the reply they are from.
    async fn rubric(&self, item: &JudgeItem, text: &str, deadline: Instant) -> Result<(Opinion, String), Unanswered> {
        let key = self.key(item, &[text], "rubric");
        if let Some(kept) = self.replies.get(&item.tenant, &key).await
            && let Ok((scores, reason)) = one_scores(&kept.reply)
        {
            return Ok((Ok((vec![scores], reason)), kept.reply.clone()));
        }
        let (prompt, schema) = (rubric_prompt(item, text, self.language), one_schema());
        let question = Question { prompt: &prompt, schema: &schema, reply_tokens: self.reply_tokens };
        let ((scores, reason), reply) = self.chat.ask(&item.tenant, &question, deadline, one_scores).await?;
        self.replies.put(&item.tenant, key, &self.id, reply.clone()).await;
        Ok((Ok((vec![scores], reason)), reply))
    }

    async fn each(
        &self,
        item: &JudgeItem,
        distinct: &Distinct<'_>,
        deadline: Instant,
    ) -> Result<(Vec<Opinion>, Flips, Vec<String>), Unanswered> {
        let texts = sorted(distinct);
        let mut dice = ChaCha8Rng::from_seed(self.key(item, &texts, "dice").0);
        if let Some(canary) = self.canaries.draw(&mut dice, &item.conversation) {
            // first, so that a judge that fails it is not asked about the rest
            let (opinion, reply) = self.rubric(item, &canary, deadline).await?;
            self.check_canary(&reply, opinion.iter().flat_map(|(orders, _)| orders).map(|scores| scores.overall()))?;
        }
        let asked = distinct.candidates.iter().map(|candidate| self.rubric(item, &candidate.text, deadline));
        let mut replies = Vec::new();
        let opinions = join_all(asked).await.into_iter().map(|answer| {
            let (opinion, reply) = answer.unwrap_or_else(|nothing| (Err(nothing.fault), nothing.reply));
            replies.extend(Some(reply).filter(|reply| !reply.is_empty()));
            opinion
        });
        let opinions = opinions.collect();
        Ok((opinions, Flips::default(), replies))
    }

    async fn list(
        &self,
        item: &JudgeItem,
        distinct: &Distinct<'_>,
        deadline: Instant,
    ) -> Result<(Vec<Opinion>, Flips, Vec<String>), Unanswered> {
        // from the sorted texts, so that nothing depends on who wrote what
        let mut texts = sorted(distinct);
        let mut dice = ChaCha8Rng::from_seed(self.key(item, &texts, "dice").0);
        let canary = self.canaries.draw(&mut dice, &item.conversation);
        let canary = canary.filter(|canary| !texts.contains(&canary.as_str()));
        texts.extend(canary.as_deref());

        let order = Listing::shuffled(&texts, &mut dice);
        let reverse = order.reversed(&mut dice);
        let (first, second) =
            try_join(self.one_order(item, &order, deadline), self.one_order(item, &reverse, deadline)).await?;
        if let Some(canary) = &canary {
            let scores = [&first, &second].map(|answer| answer.of(canary).map(|(scores, _)| scores.overall()));
            let mean = scores.iter().flatten().sum::<f64>() / 2.0;
            self.check_canary(&first.reply, [mean].into_iter())?;
        }
        for answer in [&first, &second] {
            if answer.fresh {
                self.replies.put(&item.tenant, answer.key, &self.id, answer.reply.clone()).await;
            }
        }
        let opinion = |candidate: &&Candidate| match (first.of(&candidate.text), second.of(&candidate.text)) {
            (Some((one, reason)), Some((two, _))) => Ok((vec![*one, *two], reason.clone())),
            _ => Err(VerdictFault::Entries("an entry is lost".to_owned())),
        };
        let opinions: Vec<Opinion> = distinct.candidates.iter().map(opinion).collect();
        let side = |place: usize| opinions.iter().flatten().map(move |(orders, _)| orders[place]).collect::<Vec<_>>();
        let flips = flips(&side(0), &side(1));
        Ok((opinions, flips, vec![first.reply, second.reply]))
    }

    async fn one_order<'a>(
        &self,
        item: &JudgeItem,
        listing: &Listing<'a>,
        deadline: Instant,
    ) -> Result<Answer<'a>, Unanswered> {
        let names: Vec<&str> = listing.entries.iter().flat_map(|entry| [entry.id.as_str(), entry.text]).collect();
        let key = self.key(item, &names, "list");
        let read = |reply: &str| read_list(reply, &listing.entries);
        let kept = self.replies.get(&item.tenant, &key).await;
        let kept = kept.and_then(|kept| Some((read(&kept.reply).ok()?, kept.reply.clone())));
        let fresh = kept.is_none();
        let (scores, reply) = match kept {
            Some(kept) => kept,
            None => {
                let prompt = list_prompt(item, &listing.entries, self.language);
                let schema = list_schema(&listing.entries);
                let entries = u32::try_from(listing.entries.len()).unwrap_or(u32::MAX);
                let reply_tokens = self.reply_tokens.saturating_add(entries.saturating_mul(ENTRY_TOKENS));
                let question = Question { prompt: &prompt, schema: &schema, reply_tokens };
                self.chat.ask(&item.tenant, &question, deadline, read).await?
            }
        };
        let texts = listing.entries.iter().map(|entry| entry.text);
        Ok(Answer { scores: texts.zip(scores).collect(), reply, key, fresh })
    }

    fn check_canary(&self, reply: &str, mut scores: impl Iterator<Item = f64>) -> Result<(), Unanswered> {
        if scores.any(|score| score > self.canaries.threshold) {
            self.canaries_scored.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("recast_judge_canaries_scored_total").increment(1);
            tracing::warn!(judge = self.id, "a canary scored high: the batch does not count");
            return Err(Unanswered { fault: VerdictFault::CanaryScored, reply: reply.to_owned() });
        }
        Ok(())
    }
}

/// One order's scores by text.
struct Answer<'a> {
    scores: Vec<(&'a str, (crate::Scores, String))>,
    reply: String,
    key: VerdictKey,
    fresh: bool,
}

impl Answer<'_> {
    fn of(&self, text: &str) -> Option<&(crate::Scores, String)> {
        self.scores.iter().find(|(known, _)| *known == text).map(|(_, scores)| scores)
    }
}

fn sorted<'a>(distinct: &Distinct<'a>) -> Vec<&'a str> {
    let mut texts: Vec<&str> = distinct.candidates.iter().map(|candidate| candidate.text.as_str()).collect();
    texts.sort_unstable();
    texts
}

#[async_trait]
impl Judge for OpenAiJudge {
    fn forget(&self) {
        self.replies.forget();
    }

    fn id(&self) -> &str {
        &self.id
    }

    async fn probe(&self) -> Result<(), JudgeError> {
        let tenant = "probe".parse().map_err(|error| JudgeError::Unavailable(format!("{error}")))?;
        let conversation = Conversation { query: "孕妇能喝吗".to_owned(), ..Conversation::default() };
        let item = JudgeItem {
            tenant,
            domain: String::new(),
            terms: Vec::new(),
            conversation,
            passages: Vec::new(),
            repeat: 0,
        };
        let (prompt, schema) = (rubric_prompt(&item, "胶原蛋白肽饮 孕妇能喝吗", self.language), one_schema());
        let question = Question { prompt: &prompt, schema: &schema, reply_tokens: self.reply_tokens };
        let reply = self.chat.probe(&question).await?;
        let unusable = |fault| JudgeError::Unavailable(format!("{fault}; is judge.model able to write JSON?"));
        one_scores(&reply).map(|_| ()).map_err(unusable)
    }

    async fn judge_rubric(&self, item: &JudgeItem, rewrite: &Candidate) -> RubricVerdict {
        if let Some(reason) = invalid_rewrite(&item.conversation.query, &rewrite.text, &self.rules) {
            return Verdict::Missing { fault: VerdictFault::NoRewrite(reason) }.into();
        }
        let answer = self.rubric(item, &rewrite.text, Instant::now() + self.group_time).await;
        let (opinion, reply) = answer.unwrap_or_else(|nothing| (Err(nothing.fault), nothing.reply));
        let scored = opinion.and_then(|(orders, reason)| Ok((*orders.first().ok_or(VerdictFault::Blank)?, reason)));
        let verdict = match scored {
            Ok((scores, reason)) => Verdict::Scored { scores, reason },
            Err(fault) => Verdict::Missing { fault },
        };
        RubricVerdict { verdict, reply }
    }

    async fn judge_group(&self, item: &JudgeItem, rewrites: &[Candidate], baseline: &Candidate) -> GroupVerdict {
        let distinct = Distinct::of(&item.conversation.query, rewrites, baseline, &self.rules);
        if distinct.candidates.is_empty() {
            return distinct.verdict(&self.id, &[], Flips::default(), Vec::new());
        }
        let deadline = Instant::now() + self.group_time;
        let answer = match self.mode {
            JudgeMode::Rubric => self.each(item, &distinct, deadline).await,
            JudgeMode::Listwise => self.list(item, &distinct, deadline).await,
        };
        match answer {
            Ok((opinions, flips, replies)) => distinct.verdict(&self.id, &opinions, flips, replies),
            Err(nothing) => distinct.missing(&self.id, &nothing.fault, nothing.reply),
        }
    }
}
