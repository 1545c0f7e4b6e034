//! Rewrites of a dataset beside those of the tenants' folders.

use std::collections::HashSet;
use std::path::Path;

use recast_domain::{Dialogue, QueryType, Split};
use recast_episodes::datasets::{TrainingSample, load_rewrites, normalised};

use crate::corpus::{Corpus, TenantData};
use crate::error::{LearnError, Result};
use crate::settings::TrainSettings;
use crate::swap::SplitDialogue;

/// What became of the samples of datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatasetFit {
    /// Train dialogues now.
    pub added: u64,
    /// Left out, because a question of the validation or test split is asked in them, or a name is spoken of that only
    /// these know: what is measured must not be learned.
    pub held_out: u64,
}

/// Reads the datasets of a training and says what of them it would learn from.
///
/// # Errors
/// With every row that cannot be used, and where a tenant has no folder.
pub fn dataset_fit(settings: &TrainSettings) -> Result<DatasetFit> {
    let mut corpus = Corpus::load(&settings.data)?;
    corpus.add_datasets(settings)
}

impl Corpus {
    /// Adds the rewrites of all datasets of a training.
    ///
    /// # Errors
    /// As [`Corpus::add_dataset`].
    pub(crate) fn add_datasets(&mut self, settings: &TrainSettings) -> Result<DatasetFit> {
        let mut all = DatasetFit::default();
        for file in &settings.datasets {
            let fit = self.add_dataset(file)?;
            all.added += fit.added;
            all.held_out += fit.held_out;
        }
        Ok(all)
    }

    /// Adds the rewrites of a file that `recast datasets build` made (`--kind sft` or `--kind messages`) to the train
    /// dialogues of its tenants.
    ///
    /// # Errors
    /// With every row that cannot be used, and where a tenant has no folder.
    pub fn add_dataset(&mut self, file: &Path) -> Result<DatasetFit> {
        let samples = load_rewrites(file).map_err(|error| LearnError::Data(error.to_string()))?;
        let mut fit = DatasetFit::default();
        let mut left = samples;
        for tenant in &mut self.tenants {
            let (own, others) = left.into_iter().partition(|sample| sample.tenant_id == tenant.profile.id.as_str());
            left = others;
            tenant.add(own, &mut fit)?;
        }
        match left.first() {
            None => Ok(fit),
            Some(sample) => Err(LearnError::Data(format!(
                "{}: sample {} is of tenant {:?}, which has no folder in the training data",
                file.display(),
                sample.sample_id,
                sample.tenant_id
            ))),
        }
    }
}

impl TenantData {
    fn add(&mut self, samples: Vec<TrainingSample>, fit: &mut DatasetFit) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let held_out = self.training()?.held_out;
        let measured = self.dialogues.iter().filter(|dialogue| dialogue.split != Split::Train);
        let measured: HashSet<String> = measured.map(asked).collect();
        for sample in samples {
            let dialogue = dialogue(sample);
            let names = SplitDialogue::new(&dialogue, &self.mentions).forms;
            let unseen = names.iter().any(|form| held_out.contains(&self.mentions.form(*form).entity));
            if unseen || measured.contains(&asked(&dialogue)) {
                fit.held_out += 1;
            } else {
                fit.added += 1;
                self.dialogues.push(dialogue);
            }
        }
        Ok(())
    }
}

/// What is asked, with the turns before it, in the form in which texts are compared.
fn asked(dialogue: &Dialogue) -> String {
    let turns = dialogue.history.iter().map(|turn| turn.content.as_str());
    let texts: Vec<String> = turns.chain([dialogue.query.as_str()]).map(normalised).collect();
    texts.join("\n")
}

/// A sample as a train dialogue without labels of passages.
fn dialogue(sample: TrainingSample) -> Dialogue {
    let TrainingSample { sample_id, conversation_id, conversation, rewrite, .. } = sample;
    Dialogue {
        id: sample_id,
        conversation_id,
        split: Split::Train,
        history: conversation.history,
        query: conversation.query,
        user_profile: conversation.user_profile,
        history_summary: conversation.history_summary,
        thought: conversation.thought,
        gold_rewrites: vec![rewrite],
        relevant: Vec::new(),
        query_type: QueryType::General,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::PathBuf;

    use recast_config::{Source, TenantProfile, load};
    use recast_domain::{Conversation, Episode, EpisodeId, PolicyId, RequestFacts, Rewrite, RewriteSource, Timings};
    use recast_episodes::EpisodeStore;
    use recast_episodes::datasets::{BuildRequest, Kind, build};

    use super::*;
    use crate::swap::tests::tenant;

    fn episode(query: &str, rewrite: &str, conversation: &str) -> Episode {
        Episode {
            id: EpisodeId::now(),
            tenant: "shop".parse().unwrap(),
            created_ms: 1_795_000_000_000,
            conversation: Conversation { query: query.to_owned(), ..Conversation::default() },
            request: RequestFacts {
                kb_name: "default".parse().unwrap(),
                top_k: 5,
                score_threshold: 0.5,
                user_id: None,
                conversation_id: Some(conversation.to_owned()),
                request_id: "r".to_owned(),
                tags: Default::default(),
            },
            rewrite: Rewrite::plain(rewrite, RewriteSource::Remote, PolicyId::remote()),
            prompt_hash: String::new(),
            hits: Vec::new(),
            timings: Timings::default(),
            degraded: Vec::new(),
            redacted: false,
            experiment: None,
            refused: None,
        }
    }

    fn built(dir: &Path, profile: &TenantProfile, kind: Kind) -> PathBuf {
        let settings = load(&Source::parse("demo"), std::iter::empty()).unwrap().settings;
        let request = BuildRequest {
            tenant: profile,
            kind,
            out: &dir.join("out"),
            settings: &settings.datasets,
            seed: 7,
            now_ms: 1_795_000_000_000,
        };
        let reader = recast_episodes::EpisodeReader::open(dir.join("e.db")).unwrap();
        let manifest = build(&reader, &request, 30, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(manifest.counts.kept, 30);
        dir.join("out/sft").join(profile.id.as_str()).join(format!("train_latest.{}", ending(kind)))
    }

    fn ending(kind: Kind) -> &'static str {
        if kind == Kind::Sft { "json" } else { "jsonl" }
    }

    #[tokio::test]
    async fn what_was_built_is_learned_from_and_what_is_measured_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = tenant();
        data.profile.id = "shop".parse().unwrap();
        let settings = load(&Source::parse("demo"), std::iter::empty()).unwrap().settings;
        let store = EpisodeStore::open(dir.path().join("e.db"), &settings.episodes).unwrap();
        for number in 0..29 {
            let asked = format!("胶原饮第{number}天怎么吃");
            store
                .append(episode(&asked, &format!("胶原饮 第{number}天 食用方法"), &format!("c{number}")))
                .await
                .unwrap();
        }
        store.append(episode("秘密胶囊怎么吃", "秘密胶囊 食用方法", "c2")).await.unwrap();
        store.close().await;
        for kind in [Kind::Sft, Kind::Messages] {
            let file = built(dir.path(), &data.profile, kind);
            let rows = load_rewrites(&file).unwrap();
            let mut corpus = Corpus { tenants: vec![data.clone()] };
            let before = corpus.training().unwrap().tenants[0].dialogues.len();
            let fit = corpus.add_dataset(&file).unwrap();
            let secret = rows.iter().filter(|row| row.conversation.query.contains("秘密")).count() as u64;
            assert_eq!((fit.added + fit.held_out, fit.held_out), (rows.len() as u64, secret), "{kind:?}");
            let training = corpus.training().unwrap();
            assert_eq!(training.tenants[0].dialogues.len(), before + fit.added as usize);
            let texts = training.texts().join("\n");
            assert!(texts.contains("食用方法") && !texts.contains("秘密胶囊 食用方法"));
        }
        let mut nobody = Corpus { tenants: vec![tenant()] };
        nobody.tenants[0].profile.id = "other".parse().unwrap();
        let file = dir.path().join("out/sft/shop/train_latest.jsonl");
        let error = nobody.add_dataset(&file).unwrap_err().to_string();
        assert!(error.contains("is of tenant \"shop\", which has no folder"), "{error}");
    }
}
