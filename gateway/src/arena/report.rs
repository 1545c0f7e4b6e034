//! What the episode store knows of an experiment, gathered for a report.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use recast_domain::{Degradation, Episode, EpisodeHit, FeedbackSignal, ShadowKind, ShadowOutcome, TenantId, Timings};
use recast_episodes::{EpisodeError, EpisodeReader, LIST_MAX, RunCursor};
use recast_experiments::report::{
    Accounting, ArmFacts, Credited, HitFacts, Pair, Report, ReportInput, Single, Units, compute,
};
use recast_experiments::{Definition, Kind, Pick, State, Unit, credit};

use crate::arena::Arena;
use crate::arena::heard::Heard;
use crate::arena::known::{KnownQuestions, label_facts, query_type};
use crate::keys::now_ms;
use crate::scoring::judge_scores;

/// A report is over the oldest so many answers at most: its memory is bounded, and sequential tests start at the start.
const MOST: usize = 50_000;
/// Characters of a passage that a report shows.
const SHOWN_CHARS: usize = 80;

impl Arena {
    /// The report on an experiment: of one version, or of all since arms, unit, tenants or salt last changed. `None`
    /// where there is no such experiment or version.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn report(&self, id: &str, version: Option<u32>) -> Result<Option<Report>, EpisodeError> {
        let (id, folder) = (id.to_owned(), self.folder.clone());
        // On a thread that may block: thousands of resamples are no work for one that serves.
        let report = self.episodes().read(move |reader| {
            let input = report_input(reader, &id, version, &folder)?;
            Ok(input.map(|input| compute(&input)))
        });
        report.await
    }
}

/// Everything that the store knows of an experiment: of one version, or of all since arms, unit, tenants or salt last
/// changed, with what a judge said of the answers. `None` where there is no such experiment or version. Answers to
/// labelled questions of the tenants' folders below `folder` have the kind of the question and its labels.
///
/// # Errors
/// When the store, or something in it, cannot be read.
pub fn report_input(
    reader: &EpisodeReader,
    id: &str,
    version: Option<u32>,
    folder: &Path,
) -> Result<Option<ReportInput>, EpisodeError> {
    let history = reader.experiment_versions(id)?.into_iter();
    let history: Vec<(u32, Definition)> =
        history.filter_map(|one| Some((one.version, serde_json::from_str(&one.definition).ok()?))).collect();
    let Some((versions, definition)) = wanted(&history, version) else { return Ok(None) };
    let mut input = ReportInput::new(definition.clone(), *versions.end());
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    input.ended = !matches!(definition.state(now), State::Running | State::Scheduled);
    let mut feedback = BTreeMap::new();
    let tenants: Vec<TenantId> = definition.tenants.iter().filter_map(|tenant| tenant.parse().ok()).collect();
    let known = KnownQuestions::read(folder, &tenants);
    for tenant in &tenants {
        let from = Source { reader, tenant, definition, versions: versions.clone(), known: &known };
        match definition.kind {
            Kind::Shadow => from.pairs(&mut input)?,
            Kind::Split => from.singles(&mut input)?,
            Kind::Interleave => from.credits(&mut input)?,
        }
        from.feedback(&mut feedback)?;
    }
    input.feedback = feedback.into_values().map(Heard::arm).collect();
    judge(reader, &mut input)?;
    Ok(Some(input))
}

/// Adds what one judge said of the answers, where it said something.
fn judge(reader: &EpisodeReader, input: &mut ReportInput) -> Result<(), EpisodeError> {
    let named = |tenant: &str, episode: &str| Some((tenant.parse().ok()?, episode.parse().ok()?));
    let of_pair = |pair: &Pair| named(&pair.tenant, &pair.episode);
    let of_single = |one: &Single| named(&one.tenant, &one.episode);
    let pairs = input.pairs.iter().chain(&input.controls).filter_map(of_pair);
    let asked: Vec<_> = pairs.chain(input.singles.iter().filter_map(of_single)).collect();
    let Some(said) = judge_scores(reader, &asked, None)? else { return Ok(()) };
    for pair in &mut input.pairs {
        let scores = of_pair(pair).and_then(|name| said.scores.get(&name));
        pair.judge = scores.and_then(|scores| Some((scores.live?, scores.shadow?)));
    }
    for pair in &mut input.controls {
        let scores = of_pair(pair).and_then(|name| said.scores.get(&name));
        pair.judge = scores.and_then(|scores| Some((scores.live?, scores.control?)));
    }
    for one in &mut input.singles {
        one.judge = of_single(one).and_then(|name| said.scores.get(&name)).and_then(|scores| scores.live);
    }
    input.judge = Some(said.judge);
    Ok(())
}

/// The versions that a report covers, and the definition of the newest one.
fn wanted(history: &[(u32, Definition)], version: Option<u32>) -> Option<(RangeInclusive<u32>, &Definition)> {
    if let Some(version) = version {
        let (_, definition) = history.iter().find(|(one, _)| *one == version)?;
        return Some((version..=version, definition));
    }
    let (last, definition) = history.last()?;
    let same = history.iter().rev().take_while(|(_, older)| compares_the_same(older, definition));
    let first = same.last().map_or(*last, |(version, _)| *version);
    Some((first..=*last, definition))
}

/// Whether answers under the two definitions may be taken together: switches, times, rates and rules of the decision
/// change how much is known, not what is compared.
fn compares_the_same(one: &Definition, other: &Definition) -> bool {
    one.kind == other.kind
        && one.arms == other.arms
        && one.control == other.control
        && one.tenants == other.tenants
        && one.unit == other.unit
        && one.salt == other.salt
}

/// One tenant's share of an experiment.
struct Source<'a> {
    reader: &'a EpisodeReader,
    tenant: &'a TenantId,
    definition: &'a Definition,
    versions: RangeInclusive<u32>,
    known: &'a KnownQuestions,
}

impl Source<'_> {
    fn pairs(&self, input: &mut ReportInput) -> Result<(), EpisodeError> {
        let mut after: Option<RunCursor> = None;
        loop {
            let page = self.reader.pairs(self.tenant, &self.definition.id, None, after.as_ref(), LIST_MAX)?;
            let Some((_, last)) = page.last() else { break };
            after = Some(RunCursor::from(last));
            for (episode, run) in page {
                let Some(ShadowOutcome::Completed { answer }) = run.outcome else { continue };
                if !self.versions.contains(&run.assignment.version) {
                    continue;
                }
                let mut live = of_episode(&episode);
                let mut other = facts(&answer.rewrite.text, &answer.hits, &answer.degraded, answer.timings);
                let dialogue = self.known.find(&episode);
                live.labels = dialogue.map(|dialogue| label_facts(&episode.hits, dialogue));
                other.labels = dialogue.map(|dialogue| label_facts(&answer.hits, dialogue));
                let pair = Pair {
                    episode: episode.id.to_string(),
                    tenant: self.tenant.to_string(),
                    query_type: dialogue.map(|dialogue| query_type(dialogue).to_owned()),
                    live,
                    other,
                    judge: None,
                    at_ms: episode.created_ms,
                    query: episode.conversation.query,
                };
                match run.kind {
                    ShadowKind::Treatment => input.pairs.push(pair),
                    ShadowKind::Control => input.controls.push(pair),
                }
            }
            if input.pairs.len() + input.controls.len() >= MOST {
                break;
            }
        }
        for one in self.reader.shadow_accounting(self.tenant, Some(&self.definition.id))? {
            if !self.versions.contains(&one.version) {
                continue;
            }
            let counts = Accounting {
                sampled: one.sampled,
                completed: one.completed,
                failed: one.failed,
                timed_out: one.timed_out,
                dropped: one.dropped,
                pending: one.pending,
            };
            match one.kind {
                ShadowKind::Treatment => input.accounting.add(&counts),
                ShadowKind::Control => input.control_accounting.add(&counts),
            }
        }
        Ok(())
    }

    /// Calls `see` with each episode of the experiment in these versions, oldest first, and its arm.
    fn episodes(&self, mut see: impl FnMut(Episode, &str) -> usize) -> Result<(), EpisodeError> {
        let mut after = None;
        loop {
            let page = self.reader.experiment_episodes(self.tenant, &self.definition.id, after, LIST_MAX)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            let mut seen = 0;
            for mut episode in page {
                if let Some(part) = episode.experiment.take_if(|part| self.versions.contains(&part.version)) {
                    seen = see(episode, &part.arm);
                }
            }
            if seen >= MOST {
                return Ok(());
            }
        }
    }

    fn singles(&self, input: &mut ReportInput) -> Result<(), EpisodeError> {
        let mut units: BTreeMap<String, (BTreeSet<String>, u64)> = BTreeMap::new();
        self.episodes(|episode, arm| {
            let unit = match self.definition.unit {
                Unit::User => episode.request.user_id.clone(),
                Unit::Conversation => episode.request.conversation_id.clone(),
                Unit::Request => None,
            };
            let unit = format!("{}/{}", self.tenant, unit.unwrap_or_else(|| episode.id.to_string()));
            let counted = units.entry(arm.to_owned()).or_default();
            counted.0.insert(unit.clone());
            counted.1 += 1;
            let mut facts = of_episode(&episode);
            facts.labels = self.known.find(&episode).map(|dialogue| label_facts(&episode.hits, dialogue));
            input.singles.push(Single {
                episode: episode.id.to_string(),
                tenant: self.tenant.to_string(),
                arm: arm.to_owned(),
                unit,
                facts,
                judge: None,
                at_ms: episode.created_ms,
                query: episode.conversation.query,
            });
            input.singles.len()
        })?;
        for (arm, (names, requests)) in units {
            let count = names.len() as u64;
            match input.units.iter_mut().find(|units| units.arm == arm) {
                Some(known) => {
                    known.units += count;
                    known.requests += requests;
                }
                None => input.units.push(Units { arm, units: count, requests }),
            }
        }
        Ok(())
    }

    fn credits(&self, input: &mut ReportInput) -> Result<(), EpisodeError> {
        let mut clicked: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for event in self.reader.feedback_by_experiment(self.tenant, &self.definition.id)? {
            if let FeedbackSignal::Click { passage } = event.signal {
                clicked.entry(event.episode).or_default().push(passage);
            }
        }
        self.episodes(|episode, _| {
            let picks: Vec<Pick> = episode.hits.into_iter().map(|hit| pick(hit, &self.definition.control)).collect();
            let clicks = clicked.remove(&episode.id).unwrap_or_default();
            input.credits.push(Credited {
                episode: episode.id.to_string(),
                credit: credit(&picks, &clicks),
                at_ms: episode.created_ms,
            });
            input.credits.len()
        })
    }

    fn feedback(&self, by_arm: &mut BTreeMap<String, Heard>) -> Result<(), EpisodeError> {
        for event in self.reader.feedback_by_experiment(self.tenant, &self.definition.id)? {
            if self.versions.contains(&event.version) {
                by_arm.entry(event.arm.clone()).or_insert_with(|| Heard::of(event.arm)).hear(&event.signal);
            }
        }
        Ok(())
    }
}

/// A place without a team is one where both lists began alike.
fn pick(hit: EpisodeHit, control: &str) -> Pick {
    Pick { id: hit.id, first: hit.team.as_deref() == Some(control), competitive: hit.team.is_some() }
}

fn of_episode(episode: &Episode) -> ArmFacts {
    facts(&episode.rewrite.text, &episode.hits, &episode.degraded, episode.timings)
}

fn facts(rewrite: &str, hits: &[EpisodeHit], degraded: &[Degradation], timings: Timings) -> ArmFacts {
    #[expect(clippy::cast_precision_loss, reason = "a time in microseconds is far below 2^52")]
    let ms = |micros: u64| micros as f64 / 1000.0;
    let shown =
        |hit: &EpisodeHit| HitFacts { id: hit.id.clone(), text: hit.content.chars().take(SHOWN_CHARS).collect() };
    ArmFacts {
        rewrite: rewrite.to_owned(),
        scores: hits.iter().map(|hit| f64::from(hit.reranker_score.unwrap_or(hit.score))).collect(),
        hits: hits.iter().map(shown).collect(),
        degraded: !degraded.is_empty(),
        rewrite_ms: ms(timings.rewrite_us),
        total_ms: ms(timings.total_us),
        labels: None,
    }
}
