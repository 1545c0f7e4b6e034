//! Asking labelled questions over HTTP, at random moments of a given rate, as live traffic would.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use recast_domain::{Conversation, Role};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A question to ask.
#[derive(Debug, Clone)]
pub struct Question {
    /// The `x-request-id` it is sent with; its episode remembers it.
    pub request_id: String,
    /// A key of its tenant.
    pub key: String,
    /// The conversation it belongs to.
    pub conversation_id: String,
    /// What is asked.
    pub conversation: Conversation,
}

/// How the replay went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Questions that were answered.
    pub answered: usize,
    /// The request id of each question that was not, with the reason.
    pub refused: Vec<(String, String)>,
}

/// When each of `count` requests leaves, counted from the start: a Poisson process of `rate` requests a second.
pub fn departures(count: usize, rate: f64, rng: &mut ChaCha8Rng) -> Vec<Duration> {
    let mut at = 0.0;
    let gap = |_| {
        // 1 - u lies in (0, 1], so that the logarithm is finite.
        at += -(1.0 - rng.random::<f64>()).ln() / rate;
        Duration::from_secs_f64(at)
    };
    (0..count).map(gap).collect()
}

/// `count` of the questions in an order drawn by the seed; more than there are go round again under ids of their own.
pub fn order(questions: &[Question], count: usize, rng: &mut ChaCha8Rng) -> Vec<Question> {
    let mut chosen = Vec::with_capacity(count);
    for round in 0.. {
        if chosen.len() >= count || questions.is_empty() {
            break;
        }
        let mut deck: Vec<&Question> = questions.iter().collect();
        deck.shuffle(rng);
        chosen.extend(deck.into_iter().take(count - chosen.len()).map(|question| {
            let mut question = question.clone();
            if round > 0 {
                question.request_id = format!("{}.{round}", question.request_id);
            }
            question
        }));
    }
    chosen
}

/// The random numbers of a seed.
pub fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Sends each question at its moment, whether or not earlier ones are answered, and waits for all answers.
pub async fn replay(url: &str, questions: Vec<Question>, departures: &[Duration], top_k: usize) -> Replayed {
    let progress = bar(questions.len());
    let client = reqwest::Client::new();
    let start = Instant::now();
    let mut asking = JoinSet::new();
    for (question, departure) in questions.into_iter().zip(departures) {
        tokio::time::sleep_until(start + *departure).await;
        let (client, target, progress) = (client.clone(), format!("{url}/general_rag"), progress.clone());
        asking.spawn(async move {
            let outcome = ask(&client, &target, &question, top_k).await;
            progress.inc(1);
            (question.request_id, outcome)
        });
    }
    let mut replayed = Replayed::default();
    while let Some(done) = asking.join_next().await {
        match done {
            Ok((_, Ok(()))) => replayed.answered += 1,
            Ok((id, Err(reason))) => replayed.refused.push((id, reason)),
            Err(error) => replayed.refused.push((String::new(), error.to_string())),
        }
    }
    progress.finish_and_clear();
    replayed
}

async fn ask(client: &reqwest::Client, url: &str, question: &Question, top_k: usize) -> Result<(), String> {
    let request = client
        .post(url)
        .bearer_auth(&question.key)
        .header("x-request-id", &question.request_id)
        .json(&body(question, top_k));
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
}

fn body(question: &Question, top_k: usize) -> Value {
    let conversation = &question.conversation;
    let turn = |turn: &recast_domain::Turn| {
        let role = if turn.role == Role::User { "user" } else { "assistant" };
        json!({"role": role, "content": turn.content})
    };
    json!({
        "query": conversation.query,
        "history": conversation.history.iter().map(turn).collect::<Vec<_>>(),
        "user_profile": conversation.user_profile,
        "history_summary": conversation.history_summary,
        "thought": conversation.thought,
        "conversation_id": question.conversation_id,
        "top_k": top_k,
        // Label metrics look at the whole list, also at hits that a user would not be shown.
        "score_threshold": 0.0,
    })
}

fn bar(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("asking {bar:40} {pos}/{len} questions, {per_sec}, {eta} left");
    let progress = ProgressBar::new(length as u64);
    if let Ok(style) = style { progress.with_style(style) } else { progress }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn questions(count: usize) -> Vec<Question> {
        let one = |index| Question {
            request_id: format!("q{index}"),
            key: String::new(),
            conversation_id: "c".to_owned(),
            conversation: Conversation::default(),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn departures_are_poisson_and_follow_from_the_seed() {
        let at = departures(20_000, 50.0, &mut generator(1));
        assert_eq!(at, departures(20_000, 50.0, &mut generator(1)));
        assert!(at.is_sorted());
        let gaps: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential gap has mean 1/rate and a standard deviation of the same size.
        assert!((mean - 0.02).abs() < 0.0006, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn every_question_is_asked_once_before_any_is_asked_again() {
        let asked = order(&questions(5), 12, &mut generator(3));
        assert_eq!(asked.len(), 12);
        let first: HashSet<&str> = asked[..5].iter().map(|question| question.request_id.as_str()).collect();
        assert_eq!(first.len(), 5);
        let all: HashSet<&str> = asked.iter().map(|question| question.request_id.as_str()).collect();
        assert_eq!(all.len(), 12, "no two requests share an id");
        assert!(order(&[], 3, &mut generator(3)).is_empty());
    }

    #[tokio::test]
    async fn a_refused_question_is_reported_with_its_reason() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let replayed = replay(&url, questions(2), &[Duration::ZERO, Duration::ZERO], 5).await;
        assert_eq!((replayed.answered, replayed.refused.len()), (0, 2));
    }
}
