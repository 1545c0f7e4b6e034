//! The serving engine beside this project's network on the golden model.
use std::time::{Duration, Instant as Clock};

use recast_domain::Sampling;
use recast_model::{Qwen3, log_probs};
use recast_rewriter::{Completion, Engine, EngineSettings, Job, ModelFiles, RewriteError, self_test};
use tokio::time::Instant;

use crate::models::{golden, golden_network, golden_settings, write_gguf};

const PROMPT: [u32; 4] = [5, 9, 33, 12];

fn job(prompt: &[u32], temperature: f64, top_p: f64, seed: u64, max_new_tokens: usize) -> Job {
    Job { prompt: prompt.to_vec(), stops: Vec::new(), sampling: Sampling { temperature, top_p, seed, max_new_tokens } }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn engine(adapter: bool) -> Engine {
    let (_folder, settings) = golden_settings(adapter);
    Engine::load(settings).await.unwrap()
}

/// Largest difference to the network's own log-probabilities of the same tokens.
fn parity(network: &Qwen3, prompt: &[u32], completion: &Completion, temperature: f64) -> f32 {
    let own = log_probs(network, &[prompt], &[&completion.token_ids[..]], temperature).unwrap();
    own[0].iter().zip(&completion.log_probs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_log_probs_are_those_of_the_network() {
    let vectors = std::fs::read_to_string(golden().join("vectors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    let greedy: Vec<u32> = serde_json::from_value(vectors["greedy_8_tokens_from_prompt0"].clone()).unwrap();
    for adapter in [false, true] {
        let (engine, network) = (engine(adapter).await, golden_network(adapter));
        let mut worst = 0.0f32;
        for prompt in [&PROMPT[..], &[40, 7, 7, 21, 22], &[63]] {
            let completion = engine.complete(&job(prompt, 0.0, 1.0, 0, 8), soon()).await.unwrap();
            assert_eq!(completion.token_ids.len(), 8);
            worst = worst.max(parity(&network, prompt, &completion, 1.0));
            for temperature in [1.0, 0.7] {
                let completion = engine.complete(&job(prompt, temperature, 1.0, 5, 20), soon()).await.unwrap();
                worst = worst.max(parity(&network, prompt, &completion, temperature));
            }
        }
        eprintln!("adapter {adapter}: largest difference {worst:e} nats");
        assert!(worst <= 1e-4, "adapter {adapter}: {worst}");
        if adapter {
            let completion = engine.complete(&job(&PROMPT, 0.0, 1.0, 0, 8), soon()).await.unwrap();
            assert_eq!(completion.token_ids, greedy, "as the reference implementation");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_adapters_in_one_process_do_not_stack() {
    let with = engine(true).await;
    let again = engine(true).await;
    let without = engine(false).await;
    let ask = async |engine: &Engine| engine.complete(&job(&PROMPT, 0.0, 1.0, 0, 8), soon()).await.unwrap();
    assert_eq!(ask(&with).await, ask(&again).await);
    assert_ne!(ask(&with).await.log_probs, ask(&without).await.log_probs);
    assert!(parity(&golden_network(false), &PROMPT, &ask(&without).await, 1.0) < 1e-4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_decides_the_draw_whatever_else_runs() {
    let engine = engine(false).await;
    let ask = |seed| {
        let job = job(&PROMPT, 1.0, 0.9, seed, 16);
        let engine = &engine;
        async move { engine.complete(&job, soon()).await.unwrap() }
    };
    let alone = ask(11).await;
    let (first, other, second) = tokio::join!(ask(11), ask(12), ask(11));
    assert_eq!(first, alone);
    assert_eq!(second, alone);
    assert_ne!(other.token_ids, alone.token_ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_token_ends_and_is_kept() {
    let engine = engine(false).await;
    let free = engine.complete(&job(&PROMPT, 1.0, 1.0, 3, 100), soon()).await.unwrap();
    assert!(!free.finished);
    let stop = free.token_ids[5];
    let mut stopping = job(&PROMPT, 1.0, 1.0, 3, 100);
    stopping.stops = vec![stop];
    let first = free.token_ids.iter().position(|token| *token == stop).unwrap();
    let stopped = engine.complete(&stopping, soon()).await.unwrap();
    assert!(stopped.finished);
    assert_eq!(stopped.token_ids, free.token_ids[..=first]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_are_cut_to_the_window() {
    let engine = engine(false).await;
    assert_eq!(engine.window(), 128);
    let long: Vec<u32> = (0..120).map(|i| i % 60 + 2).collect();
    let completion = engine.complete(&job(&long, 0.0, 1.0, 0, 500), soon()).await.unwrap();
    assert_eq!(completion.token_ids.len(), 8);
    for prompt in [vec![3; 128], Vec::new()] {
        let error = engine.complete(&job(&prompt, 0.0, 1.0, 0, 8), soon()).await.unwrap_err();
        assert!(error.to_string().contains("window"), "{error}");
    }
    assert!(engine.complete(&job(&PROMPT, 0.0, 1.0, 0, 8), soon()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_stops_the_work_and_harms_nobody() {
    let engine = engine(false).await;
    let long = job(&PROMPT, 1.0, 1.0, 1, 124);
    let expected = engine.complete(&job(&PROMPT, 1.0, 1.0, 2, 30), soon()).await.unwrap();
    for round in 0..30u64 {
        let deadline = Instant::now() + Duration::from_micros(200 * round);
        match engine.complete(&long, deadline).await {
            Ok(completion) => assert_eq!(completion.token_ids.len(), 124),
            Err(error) => assert!(matches!(error, RewriteError::Timeout), "{error}"),
        }
        let next = engine.complete(&job(&PROMPT, 1.0, 1.0, 2, 30), soon()).await.unwrap();
        assert_eq!(next, expected, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_self_test_finds_what_this_build_does_wrong() {
    let alone = self_test(&engine(false).await, [&PROMPT, &[40, 7, 7, 21]], 1).await.unwrap();
    assert_eq!((alone.permits, alone.batch_error), (1, None));
    let engine = engine(false).await;
    let two = self_test(&engine, [&PROMPT, &[40, 7, 7, 21]], 2).await.unwrap();
    let error = two.batch_error.unwrap();
    eprintln!("two sequences together differ by {error} nats; {:.0} tokens a second", two.tokens_per_second);
    assert_eq!(two.permits, if error <= 1e-2 { 2 } else { 1 });
    // whatever it found, requests that arrive together come out right
    let jobs = [job(&PROMPT, 0.0, 1.0, 0, 8), job(&[40, 7, 7, 21], 0.0, 1.0, 0, 8)];
    let (a, b) = tokio::join!(engine.complete(&jobs[0], soon()), engine.complete(&jobs[1], soon()));
    let network = golden_network(false);
    assert!(parity(&network, &jobs[0].prompt, &a.unwrap(), 1.0) < 1e-4);
    assert!(parity(&network, &jobs[1].prompt, &b.unwrap(), 1.0) < 1e-4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_named_and_the_network_is_not_asked() {
    let (folder, settings) = golden_settings(false);
    let error = async |change: &dyn Fn(&mut ModelFiles)| {
        let mut files = settings.files.clone();
        change(&mut files);
        let started = Clock::now();
        let loaded = Engine::load(EngineSettings { files, ..settings.clone() }).await;
        assert!(started.elapsed() < Duration::from_secs(5));
        loaded.err().expect("must not load").to_string()
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let weights_bytes = std::fs::read(golden().join("base/model.safetensors")).unwrap();
    let cut = write("cut.safetensors", &weights_bytes[..weights_bytes.len() / 2]);
    let prose = write("prose.json", b"this is no JSON");
    let odd = write("odd.json", br#"{"model_type": "qwen3", "hidden_size": -3}"#);
    let missing = folder.path().join("nowhere");
    fn parts(
        files: &mut ModelFiles,
    ) -> (&mut std::path::PathBuf, &mut std::path::PathBuf, &mut Vec<std::path::PathBuf>) {
        let ModelFiles::Safetensors { config, tokenizer, weights, .. } = files else { panic!() };
        (config, tokenizer, weights)
    }
    let cases = [
        (error(&|files| *parts(files).2 = vec![cut.clone()]).await, ""),
        (error(&|files| *parts(files).2 = vec![missing.clone()]).await, "nowhere"),
        (error(&|files| *parts(files).0 = prose.clone()).await, "prose.json"),
        (error(&|files| *parts(files).0 = odd.clone()).await, "hidden_size"),
        (error(&|files| *parts(files).1 = missing.clone()).await, "nowhere"),
        (error(&|files| *parts(files).1 = prose.clone()).await, ""),
    ];
    for (message, part) in cases {
        assert!(message.contains("cannot be loaded") && message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quantised_weights_stay_close() {
    let (_folder, settings) = golden_settings(false);
    let quantised = EngineSettings { quantization: recast_config::Quantization::Q8_0, ..settings };
    let engine = Engine::load(quantised).await.unwrap();
    let completion = engine.complete(&job(&PROMPT, 1.0, 1.0, 4, 16), soon()).await.unwrap();
    let error = parity(&golden_network(false), &PROMPT, &completion, 1.0);
    eprintln!("q8_0 differs by {error} nats");
    assert!(error < 0.5, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gguf_file_computes_the_same() {
    let (folder, settings) = golden_settings(false);
    let network = golden_network(false);
    let (weights, tokenizer) = (folder.path().join("tiny.gguf"), folder.path().join("tokenizer.json"));
    write_gguf(&weights, network.config(), network.weights());
    let files = ModelFiles::Gguf { weights, tokenizer };
    let engine = Engine::load(EngineSettings { files: files.clone(), ..settings.clone() }).await.unwrap();
    let completion = engine.complete(&job(&PROMPT, 1.0, 1.0, 4, 16), soon()).await.unwrap();
    let error = parity(&network, &PROMPT, &completion, 1.0);
    eprintln!("gguf in f32 differs by {error} nats");
    assert!(error < 1e-3, "{error}");
    let quantised = EngineSettings { files, quantization: recast_config::Quantization::Q4k, ..settings };
    let error = Engine::load(quantised).await.err().expect("must be refused");
    assert!(error.to_string().contains("rewriter.quantization"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_call_and_a_token_cost() {
    let engine = engine(false).await;
    let time = async |tokens: usize| {
        let job = job(&PROMPT, 0.0, 1.0, 0, tokens);
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let started = Clock::now();
            engine.complete(&job, soon()).await.unwrap();
            best = best.min(started.elapsed());
        }
        best
    };
    let (short, long) = (time(1).await, time(101).await);
    let token = (long.saturating_sub(short)) / 100;
    eprintln!("a call with one token {short:?}, each further token {token:?}");
    assert!(token < Duration::from_millis(50));
}
