//! One policy version in the engine, with its adapter merged.
//!
//! Sequences that decode together on a processor get each other's attention, so `permits` lets one run at a time
//! there. The engine dies when somebody hangs up on it, so a task of its own listens to every request to its end;
//! whoever asked may leave, which cancels the request at its next token.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mistralrs::{
    Constraint, CustomLogitsProcessor, MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams,
    StopTokens,
};
use recast_domain::Sampling;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::load::{EngineSettings, load};
use crate::sampler::SeededSampler;
use crate::{Result, RewriteError};

/// A dead engine is started again by the next request; it takes less than this.
const RESTART: Duration = Duration::from_millis(100);

/// A loaded model that completes prompts.
pub struct Engine {
    runner: Arc<MistralRs>,
    permits: Arc<Semaphore>,
    window: usize,
    next_id: AtomicUsize,
}

/// A prompt to complete.
#[derive(Debug, Clone)]
pub struct Job {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens that end the completion.
    pub stops: Vec<u32>,
    /// How to draw; `max_new_tokens` is cut to the model's window.
    pub sampling: Sampling,
}

/// What the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Tokens, the end included where it came.
    pub token_ids: Vec<u32>,
    /// Natural log-probability of each token under the distribution it was drawn from; at temperature 0 that of the
    /// plain softmax.
    pub log_probs: Vec<f32>,
    /// Whether the end came before the length ran out.
    pub finished: bool,
}

/// Why a run gave nothing.
pub(crate) enum Failure {
    /// The engine went away without a word.
    Closed,
    /// The engine said why.
    Said(String),
}

/// A request in the engine. Dropping it cancels the request.
pub(crate) struct Running {
    done: oneshot::Receiver<Result<(), Failure>>,
    sampler: Arc<SeededSampler>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sampler.cancel();
    }
}

impl Engine {
    /// Loads a model, on a thread of its own. One sequence may run at a time, see [`Engine::allow`].
    ///
    /// # Errors
    /// When a file is missing or damaged, or the device is not there.
    pub async fn load(settings: EngineSettings) -> Result<Self> {
        let loaded = load(settings).await?;
        let permits = Arc::new(Semaphore::new(1));
        Ok(Self { runner: loaded.runner, permits, window: loaded.window, next_id: AtomicUsize::new(1) })
    }

    /// Lets `more` further sequences run at the same time.
    pub fn allow(&self, more: usize) {
        self.permits.add_permits(more);
    }

    /// Longest sequence in tokens, prompt included.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// Completes a prompt, waiting for a free place first.
    ///
    /// # Errors
    /// When the deadline passes, the prompt leaves no room, or the engine fails (twice, where it had to restart).
    pub async fn complete(&self, job: &Job, deadline: Instant) -> Result<Completion> {
        let timely = timeout_at(deadline, async {
            match self.run(job).await {
                Err(Failure::Closed) => {
                    metrics::counter!("recast_rewriter_restarts_total").increment(1);
                    sleep(RESTART).await;
                    Ok(self.run(job).await?)
                }
                outcome => Ok(outcome?),
            }
        });
        timely.await.unwrap_or(Err(RewriteError::Timeout))
    }

    async fn run(&self, job: &Job) -> Result<Completion, Failure> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Failure::Closed)?;
        self.start(job, Some(permit)).await?.wait(&job.stops).await
    }

    /// Hands a request to the engine without asking for a place; `permit` is kept until the engine is done with it.
    pub(crate) async fn start(&self, job: &Job, permit: Option<OwnedSemaphorePermit>) -> Result<Running, Failure> {
        let room = self.window.saturating_sub(job.prompt.len());
        if job.prompt.is_empty() || room == 0 {
            let length = job.prompt.len();
            let reason = format!("a prompt of {length} tokens leaves no room in the window of {}", self.window);
            return Err(Failure::Said(reason));
        }
        // past its window the engine fails every sequence of the batch
        let max_new_tokens = job.sampling.max_new_tokens.clamp(1, room);
        let sampler = Arc::new(SeededSampler::new(job.sampling, job.prompt.len()));
        // room for every token: a listener that lags would stop the engine
        let (respond, responses) = mpsc::channel(max_new_tokens + 8);
        let request = self.request(job, max_new_tokens, sampler.clone(), respond);
        let sender = catch_unwind(AssertUnwindSafe(|| self.runner.get_sender(None)));
        let Ok(Ok(sender)) = sender else { return Err(Failure::Closed) };
        if sender.send(request).await.is_err() {
            return Err(Failure::Closed);
        }
        let (tell, done) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = listen(responses).await;
            drop(permit);
            let _ = tell.send(outcome);
        });
        Ok(Running { done, sampler })
    }

    fn request(
        &self,
        job: &Job,
        max_new_tokens: usize,
        sampler: Arc<SeededSampler>,
        response: mpsc::Sender<Response>,
    ) -> Request {
        let sampling_params = SamplingParams {
            // the sampler leaves one token standing, which the cheapest rule finds
            temperature: Some(0.0),
            max_len: Some(max_new_tokens),
            stop_toks: (!job.stops.is_empty()).then(|| StopTokens::Ids(job.stops.clone())),
            ..SamplingParams::neutral()
        };
        Request::Normal(Box::new(NormalRequest {
            messages: RequestMessage::CompletionTokens(job.prompt.clone()),
            sampling_params,
            response,
            return_logprobs: false,
            // without streaming, a listener that leaves kills the engine and all its requests
            is_streaming: true,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            constraint: Constraint::None,
            suffix: None,
            tools: None,
            tool_choice: None,
            logits_processors: Some(vec![sampler as Arc<dyn CustomLogitsProcessor>]),
            return_raw_logits: false,
            web_search_options: None,
            model_id: None,
            truncate_sequence: false,
        }))
    }
}

impl Running {
    /// Waits for the end of the completion.
    pub(crate) async fn wait(mut self, stops: &[u32]) -> Result<Completion, Failure> {
        let outcome = (&mut self.done).await;
        outcome.unwrap_or(Err(Failure::Closed))?;
        let (token_ids, log_probs) = self.sampler.drawn();
        let finished = token_ids.last().is_some_and(|last| stops.contains(last));
        Ok(Completion { token_ids, log_probs, finished })
    }
}

impl From<Failure> for RewriteError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Said(reason) => Self::Engine(reason),
            Failure::Closed => Self::Engine("it stopped while it worked".to_owned()),
        }
    }
}

/// Listens until the engine says that the sequence is over.
async fn listen(mut responses: mpsc::Receiver<Response>) -> Result<(), Failure> {
    while let Some(response) = responses.recv().await {
        match response {
            Response::CompletionChunk(chunk) => {
                if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) {
                    return Ok(());
                }
            }
            Response::CompletionDone(_) => return Ok(()),
            Response::CompletionModelError(reason, _) | Response::ModelError(reason, _) => {
                return Err(Failure::Said(reason));
            }
            Response::InternalError(error) | Response::ValidationError(error) => {
                return Err(Failure::Said(error.to_string()));
            }
            _ => return Err(Failure::Said("it answered with something else than text".to_owned())),
        }
    }
    Err(Failure::Closed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Tensor;
    use recast_config::{Device, Quantization};
    use recast_model::{VocabularySettings, train_tokenizer};

    use super::*;
    use crate::ModelFiles;

    struct Bomb;

    impl CustomLogitsProcessor for Bomb {
        fn apply(&self, _logits: &Tensor, _context: &[u32]) -> candle_core::Result<Tensor> {
            panic!("the engine thread is meant to die of this")
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dead_engine_comes_back_within_the_request() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tiny_qwen3/base");
        let dir = tempfile::tempdir().unwrap();
        train_tokenizer(&[], "", VocabularySettings { entries: 300, words: 0 })
            .unwrap()
            .write(dir.path(), 128)
            .unwrap();
        let files = ModelFiles::Safetensors {
            config: golden.join("config.json"),
            tokenizer: dir.path().join("tokenizer.json"),
            weights: vec![golden.join("model.safetensors")],
            adapter: None,
        };
        let settings = EngineSettings { files, device: Device::Cpu, quantization: Quantization::None };
        let engine = Engine::load(settings).await.unwrap();
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 1, max_new_tokens: 100 };
        let job = Job { prompt: vec![5, 9, 33, 12], stops: Vec::new(), sampling };
        let soon = || Instant::now() + Duration::from_secs(60);
        let expected = engine.complete(&job, soon()).await.unwrap();
        for _ in 0..3 {
            let (respond, mut responses) = mpsc::channel(8);
            let sampler = Arc::new(SeededSampler::new(sampling, 4));
            let mut bomb = engine.request(&job, 2, sampler, respond);
            let Request::Normal(request) = &mut bomb else { unreachable!() };
            request.logits_processors = Some(vec![Arc::new(Bomb)]);
            engine.runner.get_sender(None).unwrap().send(bomb).await.unwrap();
            // both requests are in the engine when it dies, or the second finds it dead
            assert_eq!(engine.complete(&job, soon()).await.unwrap(), expected);
            assert!(responses.recv().await.is_none());
        }
    }
}
