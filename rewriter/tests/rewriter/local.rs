use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Clock};

use recast_config::{Device, Quantization, RemoteRewriterSettings, RewriterKind, RewriterSettings};
use recast_domain::{ErrorKind, RewriteSource};
use recast_rewriter::{Ladder, LocalRewriter, PARITY_NATS, RewriteError, RewriteLimits, Rewriter};
use tokio::time::Instant;

use crate::models::{parrot, write_gguf};
use crate::request;

/// Settings for the model in a folder, greedy.
pub fn settings(model: &Path) -> RewriterSettings {
    RewriterSettings {
        kind: RewriterKind::Local,
        model: model.to_owned(),
        adapter: PathBuf::new(),
        device: Device::Cpu,
        quantization: Quantization::None,
        temperature: 0.0,
        top_p: 1.0,
        max_new_tokens: 200,
        queue: 8,
        memory_limit_mib: 0,
        cache_entries: 100,
        cache_seconds: 60,
        remote: RemoteRewriterSettings {
            url: String::new(),
            api_key: "".into(),
            timeout_ms: 1000,
            response_bytes: 1000,
        },
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_folder_rewrites() {
    let dir = tempfile::tempdir().unwrap();
    let folder = parrot(&dir.path().join("model"), "胶原蛋白");
    let rewriter = LocalRewriter::load(&settings(folder.dir())).await.unwrap();
    let request = request("five", "怎么吃");
    let rewrite = rewriter.rewrite(&request, soon()).await.unwrap();
    assert_eq!((rewrite.text.as_str(), rewrite.source), ("胶原蛋白", RewriteSource::Local));
    assert_eq!(rewrite.policy, rewriter.policy());
    assert_eq!(rewrite.policy.as_str(), format!("parrot-{}", &folder.identity()[..12]));
    assert_eq!(rewrite.token_ids.len(), 5, "four characters and the end");
    assert_eq!(rewrite.log_probs.len(), 5);
    assert!(rewrite.log_probs.iter().all(|log_prob| (-0.1..=0.0).contains(log_prob)));
    assert!(rewrite.prompt_tokens > 10);
    let sampling = rewrite.sampling.unwrap();
    assert_eq!((sampling.seed, sampling.max_new_tokens), (7, 24), "the folder's bound is the lower one");
    let started = Clock::now();
    for _ in 0..200 {
        rewriter.rewrite(&request, soon()).await.unwrap();
    }
    eprintln!("one rewrite of 5 tokens: {} us", started.elapsed().as_micros() / 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ladder_of_the_settings_keeps_rewrites() {
    let dir = tempfile::tempdir().unwrap();
    let folder = parrot(&dir.path().join("model"), "胶原");
    let ladder = Ladder::from_settings(&settings(folder.dir())).await.unwrap();
    let request = request("five", "怎么吃");
    let limits = RewriteLimits { local: soon(), remote: Duration::from_secs(1), request: soon(), use_cache: true };
    let first = ladder.rewrite(&request, &limits).await;
    let second = ladder.rewrite(&request, &limits).await;
    assert_eq!((first.rewrite.source, second.rewrite.source), (RewriteSource::Local, RewriteSource::Cached));
    assert_eq!(first.rewrite.text, second.rewrite.text);
    assert!(first.degraded.is_empty() && second.degraded.is_empty());
    assert_eq!(first.prompt_hash.len(), 16);
    assert_eq!(first.prompt_hash, second.prompt_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_query_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let folder = parrot(&dir.path().join("model"), "!?");
    let rewriter = LocalRewriter::load(&settings(folder.dir())).await.unwrap();
    let error = rewriter.rewrite(&request("five", "怎么吃"), soon()).await.unwrap_err();
    assert!(matches!(error, RewriteError::Invalid(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let folder = parrot(&dir.path().join("model"), "胶原");
    let base = settings(folder.dir());
    let failure = async |settings: RewriterSettings| LocalRewriter::load(&settings).await.err().expect("must not load");
    let missing = failure(settings(&dir.path().join("nowhere"))).await;
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let no_file = failure(settings(&dir.path().join("nowhere.gguf"))).await;
    assert!(no_file.to_string().contains("nowhere.gguf"), "{no_file}");
    let big = failure(RewriterSettings { memory_limit_mib: 1, ..base.clone() }).await;
    assert!(matches!(big, RewriteError::Memory { .. }), "{big}");
    assert!(big.to_string().contains("1 MiB are available"), "{big}");
    for (field, wrong) in [
        ("temperature", RewriterSettings { temperature: -1.0, ..base.clone() }),
        ("top_p", RewriterSettings { top_p: 0.0, ..base.clone() }),
        ("max_new_tokens", RewriterSettings { max_new_tokens: 0, ..base.clone() }),
    ] {
        let error = failure(wrong).await;
        assert!(error.to_string().contains(field), "{error}");
    }
    let adapter = failure(RewriterSettings { adapter: dir.path().join("none"), ..base.clone() }).await;
    assert!(adapter.to_string().contains("none"), "{adapter}");
    let weights = folder.dir().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    let cut = failure(base.clone()).await;
    assert!(cut.to_string().contains("cut off"), "{cut}");
    std::fs::remove_file(folder.dir().join("tokenizer.json")).unwrap();
    let untokenised = failure(base).await;
    assert!(untokenised.to_string().contains("tokenizer.json"), "{untokenised}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_a_gguf_file_rewrites() {
    let dir = tempfile::tempdir().unwrap();
    let folder = parrot(&dir.path().join("model"), "蛋白");
    let weights = folder.weights(&candle_core::Device::Cpu).unwrap();
    let quantised = dir.path().join("quantised");
    std::fs::create_dir(&quantised).unwrap();
    for name in ["tokenizer.json", "recast.toml"] {
        std::fs::copy(folder.dir().join(name), quantised.join(name)).unwrap();
    }
    write_gguf(&quantised.join("Parrot-F32.gguf"), folder.config(), &weights);
    let by_folder = LocalRewriter::load(&settings(&quantised)).await.unwrap();
    let by_file = LocalRewriter::load(&settings(&quantised.join("Parrot-F32.gguf"))).await.unwrap();
    assert_eq!(by_folder.policy(), by_file.policy());
    assert!(by_file.policy().as_str().starts_with("parrot-f32-"));
    let rewrite = by_folder.rewrite(&request("five", "怎么吃"), soon()).await.unwrap();
    assert_eq!(rewrite.text, "蛋白");
    std::fs::copy(quantised.join("Parrot-F32.gguf"), quantised.join("second.gguf")).unwrap();
    let error = LocalRewriter::load(&settings(&quantised)).await.err().expect("must be refused");
    assert!(error.to_string().contains("2 .gguf files"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_and_learning_agree_about_the_shipped_policies() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let plain = settings(&models.join("rewriter"));
    let student = RewriterSettings { adapter: models.join("student"), ..plain.clone() };
    for (name, settings) in [("rewriter", &plain), ("student", &student)] {
        let rewriter = LocalRewriter::load(settings).await.unwrap();
        let nats = rewriter.parity(settings).await.unwrap().expect("small and unquantised");
        eprintln!("{name}: {nats:e} nats");
        assert!(nats <= PARITY_NATS, "{name}: {nats:e}");
        let other = if name == "student" { &plain } else { &student };
        let foreign = rewriter.parity(other).await.unwrap().unwrap();
        assert!(foreign > 100.0 * PARITY_NATS, "another policy's network must not agree: {foreign:e}");
    }
    let quantised = RewriterSettings { quantization: Quantization::Q8_0, ..plain };
    let rewriter = LocalRewriter::load(&quantised).await.unwrap();
    assert_eq!(rewriter.parity(&quantised).await.unwrap(), None);
}
