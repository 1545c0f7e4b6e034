//! What an export costs, and stores to try exports on.
//!
//! `export_bench make STORE COUNT` writes a store of made-up episodes with everything that hangs on them.
//! `export_bench run STORE FOLDER` exports it in every format, each in a process of its own, and prints rows a second of
//! CPU time for the export, for reading alone and for encoding alone, and the peak of memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use recast_config::{Durability, EpisodeSettings};
use recast_domain::{
    Assignment, Conversation, Degradation, Episode, EpisodeHit, EpisodeId, Feedback, FeedbackSignal, LegRank, Legs,
    PolicyId, RequestFacts, Rewrite, RewriteSource, Role, Sampling, ShadowAnswer, ShadowKind, ShadowOutcome, ShadowRun,
    TenantId, Timings, Turn,
};
use recast_episodes::export::{COLUMNS, ExportFilter, ExportRequest, FileWriter, Format, Source, export};
use recast_episodes::{EpisodeError, EpisodeReader, EpisodeStore, RewardRecord, Side, VerdictRecord};
use serde_json::json;
use uuid::Uuid;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const FORMATS: [Format; 4] = [Format::Parquet, Format::Jsonl, Format::Csv, Format::Xlsx];
/// Episodes that are on their way to the store at once.
const AT_ONCE: u64 = 512;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["make", store, count] => make(Path::new(store), count.parse()?),
        ["run", store, folder] => run(Path::new(store), Path::new(folder)),
        ["read", store] => read(Path::new(store)),
        ["encode", store, folder, format] => encode(Path::new(store), Path::new(folder), named(format)?),
        ["export", store, folder, format] => whole(Path::new(store), Path::new(folder), named(format)?),
        _ => Err("usage: export_bench make STORE COUNT | export_bench run STORE FOLDER".into()),
    }
}

fn named(name: &str) -> Result<Format, String> {
    FORMATS.into_iter().find(|format| format.ending() == name).ok_or_else(|| format!("{name:?} is no format"))
}

/// Each measurement in its own process, so that each has its own peak of memory and its own CPU time.
fn run(store: &Path, folder: &Path) -> Outcome {
    let own = std::env::current_exe()?;
    let child = |args: &[&str]| -> Result<f64, Box<dyn std::error::Error>> {
        let output = Command::new(&own).args(args).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let text = String::from_utf8(output.stdout)?;
        line(text.trim_end());
        let rate = text.split_whitespace().find_map(|word| word.strip_prefix("rows/s=")?.parse().ok());
        rate.ok_or_else(|| format!("{text:?} names no rate").into())
    };
    let (store, folder) = (store.to_str().ok_or("the path is no text")?, folder.to_str().ok_or("the path is no text")?);
    let reading = child(&["read", store])?;
    for format in FORMATS {
        let encoding = child(&["encode", store, folder, format.ending()])?;
        let together = child(&["export", store, folder, format.ending()])?;
        let apart = 1.0 / (1.0 / reading + 1.0 / encoding);
        line(&format!("{:<8} is {:.0} % of reading and encoding apart", format.ending(), 100.0 * together / apart));
    }
    Ok(())
}

/// Parses every row and looks at every cell.
fn read(store: &Path) -> Outcome {
    let meter = Meter::start();
    let (source, snapshot) = Source::open(&EpisodeReader::open(store)?)?;
    let (mut rows, mut cells) = (0_u64, 0_usize);
    for tenant in source.tenants()? {
        source.rows(&tenant, &ExportFilter::default(), &snapshot, |row| {
            if let Ok(row) = row {
                rows += 1;
                cells +=
                    COLUMNS.iter().filter(|column| column.value(row) != recast_episodes::export::Value::Null).count();
            }
        })?;
    }
    meter.stop("read", rows, &format!("cells={cells}"));
    Ok(())
}

/// Times the encoder alone: each row goes to several files, and what reading costs by itself is taken off.
fn encode(store: &Path, folder: &Path, format: Format) -> Outcome {
    const FILES: usize = 3;
    std::fs::create_dir_all(folder)?;
    let path = |file: usize| folder.join(format!("encoded-{file}.{}", format.ending()));
    let (source, snapshot) = Source::open(&EpisodeReader::open(store)?)?;
    let tenants = source.tenants()?;
    let start = cpu_seconds();
    for tenant in &tenants {
        source.rows(tenant, &ExportFilter::default(), &snapshot, |_| {})?;
    }
    let reading = cpu_seconds() - start;
    let (start, mut rows, mut failed) = (cpu_seconds(), 0_u64, None);
    let open = || (0..FILES).map(|file| FileWriter::create(path(file), format)).collect::<Result<Vec<_>, _>>();
    let mut files = open()?;
    for tenant in &tenants {
        source.rows(tenant, &ExportFilter::default(), &snapshot, |row| {
            let Ok(row) = row else { return };
            rows += 1;
            for file in &mut files {
                failed = failed.take().or(file.row(row).err());
            }
            // files are cut as an export cuts them
            if rows.is_multiple_of(format.rows_per_file()) {
                for file in files.drain(..) {
                    failed = failed.take().or(file.finish().err());
                }
                files = open().unwrap_or_default();
            }
        })?;
    }
    for file in files {
        file.finish()?;
    }
    let spent = (cpu_seconds() - start - reading) / FILES as f64;
    for file in 0..FILES {
        std::fs::remove_file(path(file))?;
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    line(&format!("encode {:<8} rows={rows} rows/s={:.0} (CPU time)", format.ending(), rows as f64 / spent.max(0.001)));
    Ok(())
}

fn whole(store: &Path, folder: &Path, format: Format) -> Outcome {
    let meter = Meter::start();
    let reader = EpisodeReader::open(store)?;
    let tenants = Source::open(&reader)?.0.tenants()?;
    let folder = folder.join(format.ending());
    let request = ExportRequest {
        tenants,
        filter: ExportFilter::default(),
        format,
        rows_per_file: None,
        folder: folder.clone(),
        resume: false,
    };
    let manifest = export(&reader, &request, |_| ControlFlow::Continue(()))?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    meter.stop(&format!("export {:<8}", format.ending()), manifest.rows, &format!("bytes={bytes}"));
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

struct Meter {
    start: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu_seconds() }
    }

    fn stop(self, what: &str, rows: u64, more: &str) {
        let (cpu, wall) = (cpu_seconds() - self.cpu, self.start.elapsed().as_secs_f64());
        line(&format!(
            "{what} rows={rows} rows/s={:.0} (CPU time; {:.0} in wall time) peak_mb={} {more}",
            rows as f64 / cpu.max(0.001),
            rows as f64 / wall,
            peak_kb() / 1024
        ));
    }
}

/// User and system time of this process: fields 14 and 15, in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::print_stdout, reason = "a measurement is printed")]
fn line(text: &str) {
    println!("{text}");
}

fn make(path: &Path, count: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let settings = EpisodeSettings {
        url: String::new().into(),
        durability: Durability::Group,
        batch_max: 512,
        retention_days: 0,
        max_bytes: u64::MAX,
        low_water_bytes: 0,
    };
    runtime.block_on(async {
        let store = EpisodeStore::open(path, &settings)?;
        for start in (0..count).step_by(AT_ONCE as usize) {
            let numbers = start..count.min(start + AT_ONCE);
            let (mut verdicts, mut rewards) = (Vec::new(), Vec::new());
            for number in numbers {
                let one = episode(number)?;
                let (say, pay) = scores(&one, number);
                verdicts.extend(say);
                rewards.extend(pay);
                let feedback = feedback(&one, number);
                while let Err(error) = append(&store, &one, number).await {
                    again(error)?;
                }
                if let Some(event) = feedback {
                    while let Err(error) = store.put_feedback(&event).await {
                        again(error)?;
                    }
                }
            }
            while let Err(error) = store.put_verdicts(verdicts.clone()).await {
                again(error)?;
            }
            while let Err(error) = store.put_rewards(rewards.clone()).await {
                again(error)?;
            }
        }
        store.close().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    line(&format!("{count} episodes in {}, {} bytes", path.display(), std::fs::metadata(path)?.len()));
    Ok(())
}

async fn append(store: &EpisodeStore, one: &Episode, number: u64) -> Result<(), EpisodeError> {
    if number.is_multiple_of(2) {
        store.append(one.clone()).await
    } else {
        store.append_sampled(one.clone(), shadow(one)).await
    }
}

/// A disk that is busy is waited for: what was written twice is there once.
fn again(error: EpisodeError) -> Result<(), EpisodeError> {
    match error {
        EpisodeError::Slow { .. } | EpisodeError::QueueFull { .. } => Ok(()),
        other => Err(other),
    }
}

/// Small numbers that look like chance and are the same each time.
fn mixed(number: u64, salt: u64) -> u64 {
    let mut x = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 29)
}

const WORDS: [&str; 16] = [
    "胶原蛋白肽",
    "孕妇",
    "哺乳期",
    "能不能喝",
    "一天几次",
    "饭前还是饭后",
    "过敏",
    "保质期",
    "多少钱",
    "和维生素C",
    "一起吃",
    "副作用",
    "儿童",
    "糖尿病",
    "=退货?",
    "运费, 谁出",
];

fn words(number: u64, salt: u64, count: u64) -> String {
    (0..count).map(|at| WORDS[(mixed(number, salt + at * 7919) % 16) as usize]).collect()
}

fn hits(number: u64, salt: u64) -> Vec<EpisodeHit> {
    let count = if number.is_multiple_of(37) { 0 } else { 5 };
    (0..count)
        .map(|rank| EpisodeHit {
            id: format!("p{}", mixed(number, salt + rank) % 5000),
            doc_id: format!("d{}", mixed(number, salt + rank) % 500),
            content: words(number, salt + 100 * rank, 14),
            rank: rank as u32 + 1,
            score: 0.9 - 0.1 * rank as f32 - (mixed(number, salt) % 1000) as f32 / 20_000.0,
            reranker_score: (!number.is_multiple_of(3)).then_some(0.8 - 0.1 * rank as f32),
            legs: Legs { bm25: Some(LegRank { rank: rank as u32 + 1, score: 11.5 }), dense: None },
            team: None,
        })
        .collect()
}

fn rewrite(number: u64, salt: u64, source: RewriteSource) -> Rewrite {
    Rewrite {
        text: format!("{} {}", words(number, salt, 2), words(number, salt + 1, 2)),
        source,
        policy: PolicyId::pass_through(),
        token_ids: (0..12).map(|at| (mixed(number, at) % 30_000) as u32).collect(),
        log_probs: (0..12).map(|at| -((mixed(number, at) % 1000) as f32) / 1000.0).collect(),
        prompt_tokens: 180,
        sampling: Some(Sampling { temperature: 0.7, top_p: 0.9, seed: number, max_new_tokens: 40 }),
    }
}

fn episode(number: u64) -> Result<Episode, Box<dyn std::error::Error>> {
    // two months from 1 September 2026 on; one in ten is of the second tenant
    let created_ms = 1_788_220_800_000 + (number as i64) * 5000 % (60 * 86_400_000);
    let tenant: TenantId = if number % 10 == 9 { "second" } else { "first" }.parse()?;
    let id = (created_ms as u128) << 80 | 0x7000_8000_0000_0000_0000 | u128::from(number);
    let turn = |at: u64| Turn {
        role: if at.is_multiple_of(2) { Role::User } else { Role::Assistant },
        content: words(number, 300 + at, 4),
    };
    Ok(Episode {
        id: EpisodeId(Uuid::from_u128(id)),
        tenant,
        created_ms,
        conversation: Conversation {
            query: format!("{}\n{}?", words(number, 1, 2), words(number, 2, 1)),
            history: (0..number % 5).map(turn).collect(),
            user_profile: "女, 32 岁, \"备孕\"".to_owned(),
            history_summary: String::new(),
            thought: String::new(),
        },
        request: RequestFacts {
            kb_name: "default".parse()?,
            top_k: 5,
            score_threshold: 0.5,
            user_id: Some(format!("u-{}", mixed(number, 5) % 20_000)),
            conversation_id: Some(format!("c-{}", number / 4)),
            request_id: format!("r-{number:012}"),
            tags: [("channel".to_owned(), "app".to_owned())].into(),
        },
        rewrite: rewrite(number, 10, RewriteSource::Local),
        prompt_hash: "7d0f3c".to_owned(),
        hits: hits(number, 1000),
        timings: Timings {
            rewrite_us: 90_000 + mixed(number, 6) % 50_000,
            embed_us: 4000 + mixed(number, 7) % 1000,
            search_us: 2000 + mixed(number, 8) % 900,
            rerank_us: 15_000 + mixed(number, 9) % 9000,
            total_us: 120_000 + mixed(number, 6) % 60_000,
        },
        degraded: if number.is_multiple_of(29) { vec![Degradation::RerankTimeout] } else { Vec::new() },
        redacted: false,
        refused: None,
        experiment: (number % 2 == 1).then(|| Assignment {
            experiment: "teacher".to_owned(),
            version: 1,
            arm: "small".to_owned(),
        }),
    })
}

fn shadow(one: &Episode) -> ShadowRun {
    let number = one.id.0.as_u128() as u64 & 0xffff_ffff;
    let answer = ShadowAnswer {
        rewrite: rewrite(number, 20, RewriteSource::Remote),
        prompt_hash: String::new(),
        hits: hits(number, 2000),
        timings: one.timings,
        degraded: Vec::new(),
    };
    let failed = ShadowOutcome::Failed { reason: "rewriter_failed".to_owned() };
    ShadowRun {
        episode: one.id,
        tenant: one.tenant.clone(),
        assignment: Assignment { experiment: "teacher".to_owned(), version: 1, arm: "32b".to_owned() },
        kind: ShadowKind::Treatment,
        sampled_ms: one.created_ms,
        outcome: Some(if number.is_multiple_of(41) {
            failed
        } else {
            ShadowOutcome::Completed { answer: Box::new(answer) }
        }),
    }
}

fn scores(one: &Episode, number: u64) -> (Vec<VerdictRecord>, Vec<RewardRecord>) {
    if number % 4 != 1 {
        return (Vec::new(), Vec::new());
    }
    let verdict = |side: Side, salt: u64| VerdictRecord {
        tenant: one.tenant.clone(),
        episode: one.id,
        key: [side_byte(&side); 32],
        side,
        judge: "heuristic-1".to_owned(),
        prompt_version: "p1".to_owned(),
        schema_version: 1,
        scores: Some(json!({"state": "scored", "overall": 1.0 + (mixed(number, salt) % 9) as f64 / 2.0, "orders": []})),
        reason: "指代清楚, 但漏了数量".to_owned(),
        raw: String::new(),
        created_ms: one.created_ms + 1000,
    };
    let total = (mixed(number, 30) % 2001) as f64 / 1000.0 - 1.0;
    let reward = RewardRecord {
        tenant: one.tenant.clone(),
        episode: one.id,
        side: Side::Live,
        reward_version: 1,
        weights_hash: "5f1c".to_owned(),
        parts: json!({"reward": {"state": "scored", "version": 1, "judge": total, "retrieval": 0.25, "bonus": 0.0,
            "quality_student": 0.5, "quality_baseline": 0.5, "total": total}}),
        created_ms: one.created_ms + 1000,
    };
    (vec![verdict(Side::Live, 40), verdict(Side::Shadow, 41)], vec![reward])
}

fn side_byte(side: &Side) -> u8 {
    u8::from(*side == Side::Live)
}

fn feedback(one: &Episode, number: u64) -> Option<Feedback> {
    let signal = match number % 20 {
        3 => FeedbackSignal::Thumbs { up: number % 60 != 3 },
        7 => FeedbackSignal::Comment { text: "很有用, 谢谢!\n=1+1".to_owned() },
        _ => return None,
    };
    let id = Uuid::from_u128(u128::from(number) << 64 | 0xfeed);
    Some(Feedback { id, tenant: one.tenant.clone(), episode: one.id, created_ms: one.created_ms + 60_000, signal })
}
