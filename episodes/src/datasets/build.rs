//! A dataset from its first sample to its manifest.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use recast_config::{DatasetSettings, TenantProfile};
use recast_domain::Split;
use serde_json::Value;

use super::augment;
use super::filter::{Counts, Rule, Seen, Wanted, quality};
use super::latest::Folder;
use super::report::{DatasetFile, DatasetManifest, Limits, SplitStats, StatsReport};
use super::sample::Sample;
use super::split::{self, SPLITS};
use super::spool::Spool;
use super::{messages, rl, sft, trl, verl};
use crate::export::{ExportError, HashedFile, time_text};

/// What a dataset is for, which is also its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rewrites in an envelope.
    Sft,
    /// Rewrites as chats.
    Messages,
    /// Pairs of rewrites in an envelope.
    Rl,
    /// Prompts for verl.
    Verl,
    /// Prompts for TRL.
    Trl,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Messages => "messages",
            Self::Rl => "rl",
            Self::Verl => "verl",
            Self::Trl => "trl",
        }
    }

    /// What its rows must have.
    #[must_use]
    pub fn wanted(self) -> Wanted {
        match self {
            Self::Sft | Self::Messages => Wanted::Rewrites,
            Self::Rl => Wanted::Pairs,
            Self::Verl | Self::Trl => Wanted::Prompts,
        }
    }

    /// The folder below the one that was named: both forms of rewrites lie in one.
    fn folder(self) -> &'static str {
        if self == Self::Messages { "sft" } else { self.name() }
    }

    /// The name of the envelope around its rows; `None` where each line is a row.
    fn envelope(self) -> Option<&'static str> {
        match self {
            Self::Sft => Some(sft::NAME),
            Self::Rl => Some(rl::NAME),
            Self::Messages | Self::Verl | Self::Trl => None,
        }
    }

    fn ending(self) -> &'static str {
        if self.envelope().is_some() { "json" } else { "jsonl" }
    }

    fn row(self, tenant: &TenantProfile, split: Split, sample: &Sample) -> Option<Value> {
        match self {
            Self::Sft => Some(sft::row(sample)),
            Self::Messages => Some(messages::row(tenant, sample)),
            Self::Rl => sample.pair.as_ref().map(|pair| rl::row(sample, pair)),
            Self::Verl => Some(verl::row(tenant, split, sample)),
            Self::Trl => Some(trl::row(tenant, split, sample)),
        }
    }
}

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct BuildRequest<'a> {
    /// Whose dataset; its synonyms and its system prompt are used.
    pub tenant: &'a TenantProfile,
    /// What it is for.
    pub kind: Kind,
    /// The folder; files go to `{out}/{sft|rl|verl|trl}/{tenant}`.
    pub out: &'a Path,
    /// Limits and shares.
    pub settings: &'a DatasetSettings,
    /// Seed of splits and synonyms.
    pub seed: u64,
    /// Now, milliseconds since the Unix epoch: the name of the files.
    pub now_ms: i64,
}

/// A dataset that takes samples one by one. Only hashes of what was kept stay in memory.
pub(crate) struct Builder<'a> {
    request: &'a BuildRequest<'a>,
    folder: Folder,
    spools: BTreeMap<&'static str, Spool>,
    seen: Seen,
    counts: Counts,
    created_ms: Option<(i64, i64)>,
}

impl<'a> Builder<'a> {
    /// # Errors
    /// When the folder cannot be taken.
    pub(crate) fn new(request: &'a BuildRequest<'a>) -> Result<Self, ExportError> {
        let folder = Folder::take(request.out.join(request.kind.folder()).join(request.tenant.id.as_str()))?;
        let mut spools = BTreeMap::new();
        for name in SPLITS.map(split::name) {
            spools.insert(name, Spool::create(folder.work().join(format!("{name}.spool")))?);
        }
        Ok(Self { request, folder, spools, seen: Seen::default(), counts: Counts::default(), created_ms: None })
    }

    /// Counts what is dropped before it is a sample.
    pub(crate) fn dropped(&mut self, rule: Rule) {
        self.counts.count(Some(rule));
    }

    /// Keeps a sample, or counts why not.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn push(&mut self, sample: &Sample) -> Result<(), ExportError> {
        let BuildRequest { tenant, settings, seed, kind, .. } = self.request;
        let wanted = kind.wanted();
        let split = split::of_conversation(*seed, &tenant.id, &sample.conversation_id, settings);
        let dropped = quality(sample, wanted, settings).or_else(|| self.seen.enter(sample, wanted, split));
        self.counts.count(dropped);
        if dropped.is_some() {
            return Ok(());
        }
        if sample.created_ms > 0 {
            let (first, last) = self.created_ms.unwrap_or((sample.created_ms, sample.created_ms));
            self.created_ms = Some((first.min(sample.created_ms), last.max(sample.created_ms)));
        }
        self.spool(split)?.push(sample)
    }

    fn spool(&mut self, split: Split) -> Result<&mut Spool, ExportError> {
        let missing = || ExportError::Request(format!("there is no split {}", split::name(split)));
        self.spools.get_mut(split::name(split)).ok_or_else(missing)
    }

    /// The copies with synonyms of the train rows. One that says what another row says, in whatever split, is not made.
    fn augment(&mut self) -> Result<Spool, ExportError> {
        let BuildRequest { tenant, settings, seed, kind, .. } = self.request;
        let wanted = kind.wanted();
        let mut copies = Spool::create(self.folder.work().join("augmented.spool"))?;
        if wanted != Wanted::Rewrites {
            return Ok(copies);
        }
        let Self { spools, seen, .. } = self;
        let Some(train) = spools.get_mut(split::name(Split::Train)) else { return Ok(copies) };
        let mut number = 0;
        train.each(|sample| {
            let chosen = augment::is_chosen(*seed, number, settings);
            number += 1;
            let copy = chosen.then(|| augment::augmented(*seed, &sample, tenant, settings)).flatten();
            match copy {
                Some(copy)
                    if quality(&copy, wanted, settings).is_none()
                        && seen.enter(&copy, wanted, Split::Train).is_none() =>
                {
                    copies.push(&copy)
                }
                _ => Ok(()),
            }
        })?;
        Ok(copies)
    }

    /// Writes the files and gives them their names; the manifest is the last.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn finish(mut self, source: String, from: Option<i64>) -> Result<DatasetManifest, ExportError> {
        let mut copies = self.augment()?;
        let BuildRequest { tenant, settings, seed, kind, now_ms, .. } = self.request;
        let manifest_name = |stamp: &str| format!("manifest_{}_{stamp}.json", kind.name());
        let timestamp = self.folder.free_stamp(*now_ms, manifest_name);
        let mut files = Vec::new();
        let mut splits = BTreeMap::new();
        for split in SPLITS {
            let copies = (split == Split::Train).then_some(&mut copies);
            let (file, stats) = self.write(split, copies, &timestamp)?;
            files.push(file);
            splits.insert(split::name(split), stats);
        }
        for file in &files {
            self.folder.publish(&file.path)?;
        }
        for file in &files {
            self.folder.point(&format!("{}_latest.{}", file.split, kind.ending()), &file.path)?;
        }
        let report = StatsReport { tenant_id: tenant.id.clone(), timestamp: timestamp.clone(), splits };
        self.folder.write("stats_report.json", &report)?;
        let manifest = DatasetManifest {
            kind: kind.name(),
            tenant_id: tenant.id.clone(),
            recast: env!("CARGO_PKG_VERSION").to_owned(),
            source,
            seed: *seed,
            from: from.map(time_text),
            first_created_at: self.created_ms.map(|(first, _)| time_text(first)),
            last_created_at: self.created_ms.map(|(_, last)| time_text(last)),
            counts: self.counts,
            augmented: copies.rows,
            wanted: settings.wanted,
            limits: limits(settings),
            redaction: "none by the builder: texts are as the store holds them".to_owned(),
            files,
            timestamp,
        };
        self.folder.write(&manifest_name(&manifest.timestamp), &manifest)?;
        self.folder.sweep()?;
        Ok(manifest)
    }

    /// Writes one split under its name in the folder of unfinished files.
    fn write(
        &mut self,
        split: Split,
        copies: Option<&mut Spool>,
        timestamp: &str,
    ) -> Result<(DatasetFile, SplitStats), ExportError> {
        let BuildRequest { tenant, kind, .. } = self.request;
        // the newest episode, not the clock: the same episodes give the same bytes
        let created_at = self.created_ms.map(|(_, last)| time_text(last));
        let path = format!("{}_{timestamp}.{}", split::name(split), kind.ending());
        let place: PathBuf = self.folder.work().join(&path);
        let spool = self.spool(split)?;
        let total = spool.rows + copies.as_ref().map_or(0, |copies| copies.rows);
        let mut file = HashedFile::create(&place).map_err(ExportError::io(&place))?;
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(ExportError::io(&place));
        if let Some(name) = kind.envelope() {
            put(sft::envelope_start(name, tenant.id.as_str(), created_at.as_deref(), total).as_bytes())?;
        }
        let mut stats = SplitStats::default();
        let mut each = |sample: Sample| {
            let Some(row) = kind.row(tenant, split, &sample) else { return Ok(()) };
            if kind.envelope().is_some() && stats.total_samples > 0 {
                put(b",\n")?;
            }
            put(row.to_string().as_bytes())?;
            if kind.envelope().is_none() {
                put(b"\n")?;
            }
            stats.add(&sample);
            Ok(())
        };
        spool.each(&mut each)?;
        if let Some(copies) = copies {
            copies.each(&mut each)?;
        }
        if kind.envelope().is_some() {
            put(sft::ENVELOPE_END.as_bytes())?;
        }
        let (bytes, sha256) = file.finish().map_err(ExportError::io(&place))?;
        Ok((DatasetFile { path, split: split::name(split), rows: stats.total_samples, bytes, sha256 }, stats))
    }
}

fn limits(settings: &DatasetSettings) -> Limits {
    Limits {
        query_chars: (settings.query_min_chars, settings.query_max_chars),
        rewrite_chars: (settings.rewrite_min_chars, settings.rewrite_max_chars),
        rewrite_max_growth: settings.rewrite_max_growth,
        held_out: (settings.val_share, settings.test_share),
        augment_one_in: settings.augment_one_in,
        synonym_share: settings.synonym_share,
    }
}
