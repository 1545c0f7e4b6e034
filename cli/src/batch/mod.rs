//! `recast batch`: asks a running gateway a test set, and writes down what came back.

mod journal;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use recast_episodes::datasets::Found;
use recast_episodes::datasets::workbook::{BatchRow, Question, WorkbookWriter, read_questions};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args::BatchArgs;
use crate::batch::journal::{Answered, Journal};
use crate::out;

/// How often a row is asked again where the gateway is overloaded.
const TRIES: u32 = 5;
/// The longest pause before a row is asked again, where the gateway names none.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a gateway may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// `recast batch`
pub fn run(args: &BatchArgs) -> anyhow::Result<()> {
    let is_workbook = args.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("xlsx"));
    if !is_workbook {
        bail!("--out {}: name a workbook, for example test_sft.xlsx", args.out.display());
    }
    let questions = read_questions(&args.file)?;
    let mut journal = Journal::open(&args.out.with_extension("progress"), &questions, args.resume)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(ask_all(args, &questions, &mut journal))?;
    let rows = journal.rows()?;
    write(&args.out, &rows)?;
    journal.remove()?;
    let answered = rows.iter().filter(|row| row.error.is_none()).count();
    let found = rows.iter().filter(|row| row.row.success).count();
    out::line(&format!("{} rows, {answered} answered, {found} found something: {}", rows.len(), args.out.display()));
    if let Some((number, row)) = (1..).zip(&rows).find(|(_, row)| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        out::error(&format!("{} rows were not answered; the first, row {number}: {error}", rows.len() - answered));
    }
    Ok(())
}

async fn ask_all(args: &BatchArgs, questions: &[Question], journal: &mut Journal) -> anyhow::Result<()> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(args.timeout_s))
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let target = reqwest::Url::parse(&format!("{}/general_rag", args.url.trim_end_matches('/')))
        .with_context(|| format!("--url {:?}", args.url))?;
    let progress = ProgressBar::new(questions.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} rows, {per_sec}, {eta} left") {
        progress.set_style(style);
    }
    let mut waiting = questions.iter().enumerate().filter(|(number, _)| !journal.has(*number)).collect::<Vec<_>>();
    progress.set_position((questions.len() - waiting.len()) as u64);
    waiting.reverse();
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < usize::from(args.concurrency)
            && let Some((number, question)) = waiting.pop()
        {
            let (client, target, key) = (client.clone(), target.clone(), args.key.clone());
            let question = question.clone();
            asked.spawn(async move { (number, ask(&client, target, &key, question).await) });
        }
        let Some(done) = asked.join_next().await else { break };
        let (number, answered) = done?;
        // a key that is refused is refused for every row
        journal.push(number, &answered?)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// Asks one question. What goes wrong with this row alone is part of the result.
///
/// # Errors
/// When the key is refused.
async fn ask(
    client: &reqwest::Client,
    target: reqwest::Url,
    key: &str,
    question: Question,
) -> anyhow::Result<Answered> {
    let row = BatchRow {
        original_query: question.query.clone(),
        user_profile: question.user_profile.clone(),
        history_summary: question.history_summary.clone(),
        ..BatchRow::default()
    };
    let mut answered = Answered { row, episode_id: None, error: None };
    let body = json!(question);
    for attempt in 1..=TRIES {
        let sent = client.post(target.clone()).bearer_auth(key).json(&body).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                answered.error = Some(format!("no answer: {error}"));
                return Ok(answered);
            }
        };
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            bail!("--key: the gateway answered {status}: {}", response.text().await.unwrap_or_default());
        }
        if status.as_u16() == 429 && attempt < TRIES {
            let named = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            tokio::time::sleep(named.map_or(PAUSE, Duration::from_secs).min(PAUSE_MAX)).await;
            continue;
        }
        if !status.is_success() {
            answered.error = Some(format!("{status}: {}", response.text().await.unwrap_or_default()));
            return Ok(answered);
        }
        match response.json::<Value>().await {
            Ok(reply) => take(&mut answered, &reply),
            Err(error) => answered.error = Some(format!("the answer cannot be read: {error}")),
        }
        break;
    }
    Ok(answered)
}

/// Enters a reply of the gateway.
fn take(answered: &mut Answered, reply: &Value) {
    let data = &reply["data"];
    answered.episode_id = reply["episode_id"].as_str().map(str::to_owned);
    let (rewrite, recall) = (data["rewritten_query"].as_str(), data["recall"].as_array());
    let (Some(rewrite), Some(recall)) = (rewrite, recall) else {
        answered.error = Some("the answer lacks data.rewritten_query or data.recall: is this a gateway?".to_owned());
        return;
    };
    let found: Result<Vec<Found>, _> = recall.iter().map(|hit| serde_json::from_value(hit.clone())).collect();
    match found {
        Ok(found) => {
            answered.row.rewritten_query = rewrite.to_owned();
            answered.row.found(found);
        }
        Err(error) => answered.error = Some(format!("data.recall cannot be read: {error}")),
    }
}

/// Writes the workbook and the JSON lines beside it.
fn write(path: &Path, rows: &[Answered]) -> anyhow::Result<()> {
    let mut book = WorkbookWriter::create(path)?;
    for row in rows {
        book.row(&row.row)?;
    }
    let cut = book.finish()?;
    if cut > 0 {
        out::error(&format!("{cut} cells held more than a workbook's cell and were cut: the .jsonl holds them whole"));
    }
    let mut lines = String::new();
    for row in rows {
        lines.push_str(&serde_json::to_string(row)?);
        lines.push('\n');
    }
    let (target, fresh) = (path.with_extension("jsonl"), path.with_extension("jsonl.part"));
    std::fs::write(&fresh, lines).with_context(|| fresh.display().to_string())?;
    std::fs::rename(&fresh, &target).with_context(|| target.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_becomes_a_row() {
        let mut answered = Answered { row: BatchRow::default(), episode_id: None, error: None };
        let reply = json!({"episode_id": "e1", "data": {"rewritten_query": "胶原蛋白肽 用量", "recall": [
            {"id": "p1", "content": "每日一次", "score": 0.4, "reranker_score": 0.9, "rank": 1},
            {"id": "p2", "content": "饭后", "score": 0.5, "reranker_score": null},
        ]}});
        take(&mut answered, &reply);
        assert_eq!((answered.row.recall_count, answered.row.top1_score), (2, Some(0.9)));
        assert_eq!((answered.row.avg_top3_score, answered.row.success), (Some(0.7), true));
        assert_eq!((answered.episode_id.as_deref(), &answered.error), (Some("e1"), &None));
        let mut wrong = Answered { row: BatchRow::default(), episode_id: None, error: None };
        take(&mut wrong, &json!({"hello": 1}));
        assert!(wrong.error.is_some_and(|error| error.contains("data.rewritten_query")) && !wrong.row.success);
    }
}
