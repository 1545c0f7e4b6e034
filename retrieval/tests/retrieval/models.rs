//! Providers of vectors and scores: a model folder in process, and services.
use std::path::Path;
use std::time::Duration;

use candle_core::Device;
use recast_config::{EmbedderKind, EmbedderSettings, RerankerSettings, Settings, Source};
use recast_model::{
    EncoderSettings, Manifest, ModelFolder, ModelKind, PromptSettings, Qwen3Config, VocabularySettings, init,
    train_tokenizer,
};
use recast_retrieval::embed::http::HttpEmbedder;
use recast_retrieval::embed::local::LocalEmbedder;
use recast_retrieval::embed::{Embedder, TextKind};
use recast_retrieval::rerank::http::HttpReranker;
use recast_retrieval::rerank::local::LocalReranker;
use recast_retrieval::rerank::{RerankPassage, Reranker};
use recast_retrieval::score::cosine;
use recast_retrieval::{RetrievalError, open_embedder};
use serde_json::{Value, json};
use tokio::time::Instant;
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A folder of random weights: what it says means nothing, but its shapes are right.
fn folder(dir: &Path, kind: ModelKind) {
    let texts = ["胶原蛋白肽 每天一瓶".to_owned(), "collagen daily dose".to_owned()];
    let tokenizer = train_tokenizer(&texts, "", VocabularySettings { entries: 512, words: 60 }).unwrap();
    let config = Qwen3Config::from_json(&json!({
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 128, "tie_word_embeddings": true,
    }))
    .unwrap();
    let manifest = Manifest {
        kind,
        name: "tiny".to_owned(),
        trained_by: String::new(),
        prompt: PromptSettings::default(),
        encoder: Some(EncoderSettings { dimension: 32, max_tokens: 64 }),
    };
    let weights = init(&config, 1, &Device::Cpu).unwrap();
    ModelFolder::save(dir, &manifest, &config, &weights, &tokenizer, None).unwrap();
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn a_folder_embeds_in_process_and_its_prefixes_are_part_of_its_identity() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("embedder");
    folder(&dir, ModelKind::Embedder);
    let embedder = LocalEmbedder::open(&dir, 2, Default::default()).unwrap();
    let all = texts(&["胶原蛋白肽", "collagen", "每天一瓶", "", "daily dose of collagen"]);
    let vectors = embedder.embed(TextKind::Passage, &all).await.unwrap();
    let alone = embedder.embed(TextKind::Query, &all[4..]).await.unwrap();
    assert_eq!((vectors.len(), vectors[0].len()), (5, embedder.dimension()));
    assert!((cosine(&vectors[4], &alone[0]) - 1.0).abs() < 1e-5);
    let prefixed = LocalEmbedder::open(&dir, 2, ["q: ".to_owned(), String::new()]).unwrap();
    assert_ne!(prefixed.identity(), embedder.identity());
    let wrong = LocalReranker::open(&dir, 2).err().unwrap();
    assert!(wrong.to_string().starts_with("reranker.model: "), "{wrong}");
    std::fs::write(dir.join("model.safetensors"), "broken").unwrap();
    assert!(matches!(LocalEmbedder::open(&dir, 2, Default::default()), Err(RetrievalError::Model { .. })));
    assert!(LocalEmbedder::open(&root.path().join("none"), 2, Default::default()).is_err());
}

#[tokio::test]
async fn a_folder_reranks_alike_with_and_without_preparation_and_stops_at_the_deadline() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("reranker");
    folder(&dir, ModelKind::Reranker);
    let passages: Vec<RerankPassage> =
        ["胶原蛋白肽 每天一瓶", "collagen daily dose", "每天"].map(|text| RerankPassage::new(text.to_owned())).into();
    let late = LocalReranker::open(&dir, 2).unwrap();
    let nothing = late.score("每天", &passages, Instant::now()).await.unwrap();
    assert_eq!(nothing, [None, None, None]);
    let scores = late.score("每天", &passages, soon()).await.unwrap();
    assert!((scores[2].unwrap() - 1.0).abs() < 1e-4 && scores.iter().all(|score| score.unwrap().abs() < 1.001));
    let ahead = LocalReranker::open(&dir, 2).unwrap();
    ahead.prepare(passages.clone()).await.unwrap();
    let prepared = ahead.score("每天", &passages, soon()).await.unwrap();
    for (one, other) in scores.iter().zip(&prepared) {
        assert!((one.unwrap() - other.unwrap()).abs() < 1e-4);
    }
}

fn settings() -> Settings {
    recast_config::load(&Source::parse("demo"), []).unwrap().settings
}

fn embedder(server: &MockServer) -> HttpEmbedder {
    let settings = EmbedderSettings {
        kind: EmbedderKind::Openai,
        model: "m".to_owned(),
        url: server.uri(),
        api_key: "canary-key".to_owned().into(),
        dimension: 2,
        timeout_ms: 2000,
        query_prefix: "q: ".to_owned(),
        ..settings().embedder
    };
    HttpEmbedder::new(&settings).unwrap()
}

async fn answer(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn a_service_embeds_and_its_answer_is_checked() {
    let server = MockServer::start().await;
    let rows = json!({"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]});
    Mock::given(path("/v1/embeddings"))
        .and(header("authorization", "Bearer canary-key"))
        .and(body_partial_json(json!({"model": "m", "input": ["q: a", "q: b"]})))
        .respond_with(ResponseTemplate::new(200).set_body_json(rows))
        .mount(&server)
        .await;
    let vectors = embedder(&server).embed(TextKind::Query, &texts(&["a", "b"])).await.unwrap();
    assert_eq!(vectors, [[0.6, 0.8], [0.0, 1.0]]);

    let bad: [(Value, &str); 4] = [
        (json!({"data": []}), "0 vectors"),
        (json!({"data": [{"index": 0, "embedding": [1.0]}]}), "1 values"),
        (json!({"data": [{"index": 3, "embedding": [1.0, 0.0]}]}), "index"),
        (json!({"error": "x"}), "data"),
    ];
    for (body, expected) in bad {
        let server = answer(ResponseTemplate::new(200).set_body_json(body)).await;
        let error = embedder(&server).embed(TextKind::Query, &texts(&["a"])).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for garbage in [ResponseTemplate::new(503), ResponseTemplate::new(200).set_body_string("x".repeat(200_000))] {
        let server = answer(garbage).await;
        let error = embedder(&server).embed(TextKind::Query, &texts(&["a"])).await.unwrap_err().to_string();
        assert!(!error.contains("canary-key") && !error.contains(&server.uri()), "{error}");
    }
}

#[tokio::test]
async fn a_service_reranks_in_either_shape_of_answer() {
    let passages: Vec<RerankPassage> = ["a", "b"].map(|text| RerankPassage::new(text.to_owned())).into();
    let score = |body: Value| {
        let passages = passages.clone();
        async move {
            let server = answer(ResponseTemplate::new(200).set_body_json(body)).await;
            let settings = RerankerSettings { url: server.uri(), ..settings().reranker };
            HttpReranker::new(&settings).unwrap().score("q", &passages, soon()).await
        }
    };
    let cohere = json!({"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]});
    assert_eq!(score(cohere).await.unwrap(), [Some(0.1), Some(0.9)]);
    let tei = json!([{"index": 0, "score": 0.5}, {"index": 1, "score": 0.25}]);
    assert_eq!(score(tei).await.unwrap(), [Some(0.5), Some(0.25)]);
    for bad in
        [json!({"results": [{"index": 0, "relevance_score": 1.0}]}), json!([{"index": 7, "score": 1.0}]), json!(3)]
    {
        assert!(matches!(score(bad).await, Err(RetrievalError::Rerank(_))));
    }
}

#[test]
fn a_missing_runtime_is_a_start_up_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.embedder.kind = EmbedderKind::Fastembed;
    settings.onnxruntime.library = folder.path().join("libonnxruntime.so");
    let error = open_embedder(&settings).err().unwrap().to_string();
    assert!(error.starts_with("onnxruntime.library: ") && error.contains("1.24"), "{error}");
}
