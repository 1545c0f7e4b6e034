use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::choices::{
    Device, Durability, EmbedderKind, JudgeKind, JudgeLanguage, JudgeMode, JudgeProvider, LogFormat, Quantization,
    RerankerKind, RewardKind, RewriterKind, StoreKind,
};

/// Everything that can be set. The meaning, unit and default of each key stand in `profiles/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each section is documented at its type")]
pub struct Settings {
    pub server: ServerSettings,
    pub limits: LimitSettings,
    pub deadlines: DeadlineSettings,
    pub admission: AdmissionSettings,
    pub tenants: TenantSettings,
    pub state: StateSettings,
    pub rewriter: RewriterSettings,
    pub retrieval: RetrievalSettings,
    pub embedder: EmbedderSettings,
    pub reranker: RerankerSettings,
    pub onnxruntime: OnnxSettings,
    pub episodes: EpisodeSettings,
    pub datasets: DatasetSettings,
    pub judge: JudgeSettings,
    pub reward: RewardSettings,
    pub scoring: ScoringSettings,
    pub policies: PolicySettings,
    pub learner: LearnerSettings,
    pub experiments: ExperimentSettings,
    pub shadow: ShadowSettings,
    pub telemetry: TelemetrySettings,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "each key is documented in profiles/default.toml")]
        pub struct $name { $(pub $field: $type),* }
    };
}

section!(
    /// The HTTP listener.
    ServerSettings {
        listen: SocketAddr,
        max_connections: usize,
        header_timeout_ms: u64,
        body_timeout_ms: u64,
        drain_seconds: u64,
        body_limit_bytes: usize,
        mint_keys: bool,
    }
);
section!(
    /// Bounds of one request; lengths are in characters.
    LimitSettings {
        query_chars: usize,
        rewritten_query_chars: usize,
        context_chars: usize,
        history_turns: usize,
        history_chars: usize,
        top_k: u32,
        filters: usize,
    }
);
section!(
    /// How long each stage may take, in milliseconds.
    DeadlineSettings { request_ms: u64, rewrite_ms: u64, remote_rewrite_ms: u64, retrieval_ms: u64, rerank_ms: u64 }
);
section!(
    /// Who gets in when, and for how long replies are kept for repeated idempotency keys.
    AdmissionSettings {
        max_in_flight: usize,
        tenant_requests_per_second: u32,
        tenant_burst: u32,
        idempotency_entries: u64,
        idempotency_seconds: u64,
    }
);
section!(
    /// Where tenants are described.
    TenantSettings { dir: PathBuf, seed: bool, reload_seconds: u64 }
);
section!(
    /// Where state lives.
    StateSettings { dir: PathBuf }
);
section!(
    /// The local rewriter.
    RewriterSettings {
        kind: RewriterKind,
        model: PathBuf,
        adapter: PathBuf,
        device: Device,
        quantization: Quantization,
        temperature: f64,
        top_p: f64,
        max_new_tokens: usize,
        queue: usize,
        memory_limit_mib: u64,
        cache_entries: u64,
        cache_seconds: u64,
        remote: RemoteRewriterSettings,
    }
);
section!(
    /// The 32B rewrite service.
    RemoteRewriterSettings { url: String, api_key: SecretString, timeout_ms: u64, response_bytes: usize }
);
section!(
    /// Search and ranking.
    RetrievalSettings {
        store: StoreKind,
        collection: String,
        tuning: PathBuf,
        candidates_per_leg: usize,
        reranked: usize,
        top_k: u32,
        score_threshold: f32,
        rrf_k: f32,
        expansion_weight: f32,
        chunk_tokens: usize,
        chunk_overlap: usize,
        flush_seconds: u64,
        qdrant: QdrantSettings,
    }
);
section!(
    /// A Qdrant server or cluster.
    QdrantSettings {
        url: String,
        api_key: SecretString,
        timeout_ms: u64,
        shard_number: u32,
        replication_factor: u32,
        write_consistency_factor: u32,
    }
);
section!(
    /// The one model that embeds queries and passages.
    EmbedderSettings {
        kind: EmbedderKind,
        model: String,
        url: String,
        api_key: SecretString,
        dimension: usize,
        query_prefix: String,
        passage_prefix: String,
        batch: usize,
        timeout_ms: u64,
        cache_entries: u64,
    }
);
section!(
    /// The model that orders the first hits.
    RerankerSettings {
        kind: RerankerKind,
        model: String,
        url: String,
        api_key: SecretString,
        batch: usize,
        cache_entries: u64,
    }
);
section!(
    /// The runtime that fastembed loads.
    OnnxSettings { library: PathBuf }
);
section!(
    /// The episode store.
    EpisodeSettings {
        url: SecretString,
        durability: Durability,
        batch_max: usize,
        retention_days: u32,
        max_bytes: u64,
        low_water_bytes: u64,
    }
);
section!(
    /// What becomes a row of a dataset, and how rows are split and varied.
    DatasetSettings {
        days_back: u32,
        wanted: u64,
        query_min_chars: usize,
        query_max_chars: usize,
        rewrite_min_chars: usize,
        rewrite_max_chars: usize,
        rewrite_max_growth: usize,
        import_min_top1: f64,
        val_share: f64,
        test_share: f64,
        augment_one_in: u32,
        synonym_share: f64,
    }
);
section!(
    /// Who scores rewrites for the reward, and what that may cost.
    JudgeSettings {
        kind: JudgeKind,
        provider: JudgeProvider,
        url: String,
        model: String,
        api_key: SecretString,
        mode: JudgeMode,
        language: JudgeLanguage,
        sample_rate: f64,
        canary_rate: f64,
        in_flight: usize,
        rpm: u32,
        tpm: u32,
        daily_cost: f64,
        price_in: f64,
        price_out: f64,
        reply_tokens: u32,
        timeout_ms: u64,
        group_ms: u64,
        cache_entries: u64,
        cache_seconds: u64,
    }
);
section!(
    /// Every number of the reward's formulas.
    RewardSettings {
        kind: RewardKind,
        judge: f64,
        retrieval: f64,
        bonus: f64,
        judge_slope: f64,
        retrieval_slope: f64,
        quality: [f64; 3],
        gap_max: f64,
        gap_slope: f64,
        bonus_steps: Vec<(f64, f64)>,
        bonus_floor: f64,
        invalid: f64,
    }
);
section!(
    /// Scores of rewrites that a trainer sampled.
    ScoringSettings {
        queue: usize,
        concurrency: usize,
        timeout_ms: u64,
        busy_above: usize,
        items: u64,
        results: u64,
    }
);
section!(
    /// Policies in service; the rules are read by those who run the gate.
    PolicySettings { enabled: bool, dir: PathBuf, poll_ms: u64, sample_rate: f64, queue: usize, rules: String }
);
section!(
    /// The learner beside the gateway.
    LearnerSettings {
        enabled: bool,
        gateway: String,
        tenant: String,
        algorithm: String,
        steps: u64,
        every: u64,
        questions: usize,
        group: usize,
        rank: usize,
        learning_rate: f64,
        kl: f64,
        entropy: f64,
        days_back: u32,
        min_questions: usize,
        max_questions: usize,
        rest_seconds: u64,
        patience_seconds: u64,
        spare_cores: usize,
        memory_mb: u64,
        seed: u64,
    }
);
section!(
    /// Experiments on live traffic; a definition is read by those who run it.
    ExperimentSettings { define: Vec<serde_json::Value>, guard_seconds: u64, guard_window: usize }
);
section!(
    /// Runs of another arm after the reply.
    ShadowSettings { queue: usize, concurrency: usize, deadline_ms: u64, busy_above: usize, remote: RemoteRewriterSettings }
);
section!(
    /// Logs and traces.
    TelemetrySettings { log: String, log_format: LogFormat, otlp_endpoint: String }
);

impl Settings {
    /// The folder of the embedded vector store.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.state.dir.join("store")
    }

    /// The episode database.
    #[must_use]
    pub fn episodes_file(&self) -> PathBuf {
        self.state.dir.join("episodes.sqlite")
    }

    /// The folder of the policies.
    #[must_use]
    pub fn policies_dir(&self) -> PathBuf {
        if self.policies.dir.as_os_str().is_empty() {
            self.state.dir.join("policies")
        } else {
            self.policies.dir.clone()
        }
    }

    /// The folder of the learner's rounds and of its status.
    #[must_use]
    pub fn learner_dir(&self) -> PathBuf {
        self.state.dir.join("learner")
    }

    /// The API key file.
    #[must_use]
    pub fn keys_file(&self) -> PathBuf {
        self.state.dir.join("keys.json")
    }
}

impl DeadlineSettings {
    /// The bound of a whole request.
    #[must_use]
    pub fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    /// The bound of the local rewriter.
    #[must_use]
    pub fn rewrite(&self) -> Duration {
        Duration::from_millis(self.rewrite_ms)
    }

    /// The bound of the 32B service as stand-in.
    #[must_use]
    pub fn remote_rewrite(&self) -> Duration {
        Duration::from_millis(self.remote_rewrite_ms)
    }

    /// The bound of retrieval.
    #[must_use]
    pub fn retrieval(&self) -> Duration {
        Duration::from_millis(self.retrieval_ms)
    }

    /// The bound of reranking.
    #[must_use]
    pub fn rerank(&self) -> Duration {
        Duration::from_millis(self.rerank_ms)
    }
}
