//! Settings that are one of a few words.

use serde::Deserialize;

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
    };
}

choice!(
    /// Who rewrites.
    RewriterKind {
        /// The model in `rewriter.model`, in process.
        Local,
        /// The service at `rewriter.remote.url`.
        Remote,
        /// Nobody: the user's query is searched.
        PassThrough,
    }
);
choice!(
    /// Where the local rewriter computes.
    Device {
        /// In f32 on the processor.
        Cpu,
        /// In bf16 on the first GPU; needs a build with the feature `cuda`.
        Cuda,
    }
);
choice!(
    /// Weight format after loading.
    Quantization {
        /// As stored.
        None,
        /// 4 bits, k-quants.
        Q4k,
        /// 6 bits, k-quants.
        Q6k,
        /// 8 bits.
        #[serde(rename = "q8_0")]
        Q8_0,
    }
);
choice!(
    /// Which engine keeps the vectors.
    StoreKind {
        /// In process, in `state.dir`.
        Embedded,
        /// A server or cluster.
        Qdrant,
    }
);
choice!(
    /// Who embeds.
    EmbedderKind {
        /// A model folder, in process.
        Local,
        /// An ONNX folder or a hub name, by onnxruntime.
        Fastembed,
        /// A service with the embeddings route of OpenAI.
        Openai,
        /// Nobody: lexical search only.
        None,
    }
);
choice!(
    /// Who reranks.
    RerankerKind {
        /// A model folder, in process.
        Local,
        /// An ONNX folder or a hub name, by onnxruntime.
        Fastembed,
        /// A service with the rerank route of Cohere and Jina.
        Http,
        /// Nobody: the fused order stands.
        None,
    }
);
choice!(
    /// Who scores rewrites.
    JudgeKind {
        /// Nobody: episodes stay without a verdict.
        Off,
        /// Rules, in process; deterministic.
        Heuristic,
        /// A service with the chat route of OpenAI.
        Openai,
    }
);
choice!(
    /// What the retrieval part of the reward is made from.
    RewardKind {
        /// The scores of the hits.
        Scores,
        /// The labels of the hits; a question without labels has no reward then.
        Labels,
    }
);
choice!(
    /// Which parameters the judge's service understands.
    JudgeProvider {
        /// GPT-5 and other reasoning models of OpenAI: no temperature, `max_completion_tokens`.
        Gpt5,
        /// Other models of OpenAI.
        Openai,
        /// DeepSeek: `json_object` only.
        Deepseek,
        /// vLLM.
        Vllm,
        /// llama.cpp, Ollama and other local servers.
        Local,
    }
);
choice!(
    /// What the judge is asked at once.
    JudgeMode {
        /// One rewrite.
        Rubric,
        /// All rewrites of a question and the baseline's, in two orders.
        Listwise,
    }
);
choice!(
    /// The language of the judge's instructions.
    JudgeLanguage {
        /// Chinese.
        Zh,
        /// English.
        En,
    }
);
choice!(
    /// What a reply promises of its episode.
    Durability {
        /// The episode is on disk before the reply leaves.
        Strict,
        /// The last 20 ms may be lost in a crash.
        Group,
    }
);
choice!(
    /// How log lines look.
    LogFormat {
        /// For people.
        Text,
        /// One JSON object a line.
        Json,
    }
);
