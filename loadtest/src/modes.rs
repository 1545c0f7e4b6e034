use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use recast_loadtest::client::Pool;
use recast_loadtest::closed_loop::{self, Amount};
use recast_loadtest::echo;
use recast_loadtest::error::Error;
use recast_loadtest::frontier::{self, BOUNDS_MS};
use recast_loadtest::machine::Watch;
use recast_loadtest::open_loop::{self, Finished, Load};
use recast_loadtest::overhead::{self, EchoProcess, Overhead};
use recast_loadtest::parity::{self, Counter};
use recast_loadtest::record::Record;
use recast_loadtest::report::{Report, Summary, step_line, to_text};
use recast_loadtest::requests::{Prepared, Selection, dialogue_files, prepare, read_bodies, read_keys};

use crate::args::{Arguments, Arrivals, Common, Mode};

/// How long the store may lag behind the replies.
const PARITY_PATIENCE: Duration = Duration::from_secs(3);

/// Runs the mode, prints and writes its report.
///
/// # Errors
/// A sentence: the run could not start, was voided, or broke row parity.
pub async fn run(arguments: Arguments) -> Result<(), String> {
    match arguments.mode {
        Mode::Echo { listen } => serve_echo(listen).await,
        Mode::Open { common, arrivals, rate, repeats } => {
            let session = Session::start("open", &common).await.map_err(text)?;
            let findings = open(&session, &arrivals, rate, repeats).await.map_err(text)?;
            session.finish(findings).await
        }
        Mode::Ladder { common, arrivals, from, factor, steps, repeats } => {
            let session = Session::start("ladder", &common).await.map_err(text)?;
            let findings = ladder(&session, &arrivals, (from, factor, steps), repeats).await.map_err(text)?;
            session.finish(findings).await
        }
        Mode::Closed { common, connections, seconds, warm_up, repeats } => {
            let session = Session::start("closed", &common).await.map_err(text)?;
            let findings = closed(&session, connections, (seconds, warm_up), repeats).await.map_err(text)?;
            session.finish(findings).await
        }
        Mode::Overhead { common, pairs, count } => {
            let session = Session::start("overhead", &common).await.map_err(text)?;
            let findings = against_echo(&session, pairs, count).await.map_err(text)?;
            session.finish(findings).await
        }
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

async fn serve_echo(listen: std::net::SocketAddr) -> Result<(), String> {
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    say(&format!("listening on http://{address}"));
    echo::serve(listener).await.map_err(|error| error.to_string())
}

fn say(line: &str) {
    // Nobody reads what a closed pipe loses.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What a mode adds to the report.
#[derive(Default)]
struct Findings {
    runs: Vec<Summary>,
    frontiers: Vec<Vec<frontier::Reach>>,
    overhead: Option<Overhead>,
    totals: Record,
}

impl Findings {
    fn add(&mut self, finished: Finished, rate: Option<f64>, connections: Option<usize>) {
        self.runs.push(Summary::of(&finished, rate, connections));
        self.totals.acknowledged += finished.record.acknowledged;
        self.totals.unknown += finished.record.unknown;
        self.totals.episodes.extend(finished.record.episodes);
    }
}

async fn open(session: &Session<'_>, arrivals: &Arrivals, rate: f64, repeats: u64) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    for repeat in 0..repeats {
        let plan = plan(session, arrivals, rate, repeat)?;
        findings.add(open_loop::run(plan, Arc::clone(&session.load)).await?, Some(rate), None);
    }
    Ok(findings)
}

async fn ladder(
    session: &Session<'_>,
    arrivals: &Arrivals,
    (from, factor, max_steps): (f64, f64, usize),
    repeats: u64,
) -> Result<Findings, Error> {
    if factor.is_nan() || factor <= 1.0 {
        return Err(Error::Argument(format!("--factor {factor} does not rise: give more than 1, such as 1.25")));
    }
    let mut findings = Findings::default();
    for repeat in 0..repeats {
        let plan = plan(session, arrivals, from, repeat)?;
        let on_step = |step: &frontier::Step, finished: Finished| {
            say(&step_line(step));
            findings.add(finished, Some(step.rate), None);
        };
        let steps = frontier::climb(plan, factor, max_steps, &session.load, on_step).await?;
        findings.frontiers.push(frontier::frontier(&steps, &BOUNDS_MS));
    }
    Ok(findings)
}

async fn closed(
    session: &Session<'_>,
    connections: usize,
    (measured, warm_up): (f64, f64),
    repeats: u64,
) -> Result<Findings, Error> {
    let plan = closed_loop::Plan {
        connections,
        warm_up: Amount::For(seconds("--warm-up", warm_up)?),
        measured: Amount::For(seconds("--seconds", measured)?),
    };
    let mut findings = Findings::default();
    for _ in 0..repeats {
        findings.add(closed_loop::run(plan, &session.load).await?, None, Some(connections));
    }
    Ok(findings)
}

async fn against_echo(session: &Session<'_>, pairs: usize, count: u64) -> Result<Findings, Error> {
    let here = std::path::Path::new("recast-loadtest");
    let program = std::env::current_exe().map_err(|source| Error::file(here, source))?;
    let process = EchoProcess::start(&program).await?;
    let pool = Pool::new(&process.url, &session.common.path, session.timeout())?;
    let floor = Arc::new(Load { pool, requests: session.load.requests.clone(), pid: process.pid() });
    let (overhead, runs) = overhead::run(pairs, count, &floor, &session.load).await?;
    let mut findings = Findings { overhead: Some(overhead), ..Findings::default() };
    for finished in runs {
        findings.add(finished, None, Some(1));
    }
    Ok(findings)
}

fn plan(session: &Session<'_>, arrivals: &Arrivals, rate: f64, repeat: u64) -> Result<open_loop::Plan, Error> {
    if !(rate.is_finite() && rate > 0.0) {
        return Err(Error::Argument(format!("rate {rate} must be above 0 requests per second")));
    }
    Ok(open_loop::Plan {
        rate,
        warm_up: seconds("--warm-up", arrivals.warm_up)?,
        measured: seconds("--seconds", arrivals.seconds)?,
        seed: session.common.seed.wrapping_add(repeat),
        max_in_flight: arrivals.max_in_flight.clamp(1, 65_536),
        late_after: Duration::from_micros(arrivals.late_after_us),
    })
}

fn seconds(name: &str, value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value).map_err(|_| Error::Argument(format!("{name} {value} must be 0 or more seconds")))
}

/// One server under test, from the first reading of its counters to the report.
struct Session<'a> {
    mode: &'static str,
    common: &'a Common,
    load: Arc<Load>,
    counter: Option<(Counter, u64)>,
    server: Option<serde_json::Value>,
    watch: Watch,
}

impl<'a> Session<'a> {
    async fn start(mode: &'static str, common: &'a Common) -> Result<Self, Error> {
        let timeout = Duration::from_millis(common.timeout_ms);
        let pool = Pool::new(&common.url, &common.path, timeout)?;
        let load = Arc::new(Load { pool, requests: requests(common)?, pid: common.pid });
        let counter = match (common.no_parity, &common.count_cmd) {
            (true, _) => None,
            (false, Some(command)) => Some(Counter::Command(command.clone())),
            (false, None) => Some(Counter::Metric { path: common.metrics_path.clone(), name: common.metric.clone() }),
        };
        let counter = match counter {
            Some(counter) => {
                let before = parity::read(&counter, &load.pool).await?;
                Some((counter, before))
            }
            None => None,
        };
        let version = load.pool.get("/v1/version").await.ok().filter(|reply| reply.status.is_success());
        let server = version.and_then(|reply| serde_json::from_slice(&reply.body).ok());
        Ok(Self { mode, common, load, counter, server, watch: Watch::start() })
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.common.timeout_ms)
    }

    async fn finish(self, findings: Findings) -> Result<(), String> {
        let machine = self.watch.finish();
        let parity = match &self.counter {
            Some((counter, before)) => {
                let settled =
                    parity::settle(counter, &self.load.pool, &findings.totals, *before, PARITY_PATIENCE).await;
                Some(settled.map_err(text)?)
            }
            None => None,
        };
        let report = Report {
            mode: self.mode,
            target: format!("{}{}", self.common.url, self.common.path),
            bodies: self.load.requests.len(),
            with_gold: self.common.with_gold,
            server: self.server,
            machine,
            runs: findings.runs,
            frontiers: findings.frontiers,
            overhead: findings.overhead,
            parity,
        };
        say(to_text(&report).map_err(|error| error.to_string())?.trim_end());
        if let Some(path) = &self.common.json {
            let json = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
            std::fs::write(path, json).map_err(|source| text(Error::file(path, source)))?;
        }
        verdict(&report)
    }
}

/// A run that proves nothing, or proves a loss, must fail a script.
fn verdict(report: &Report) -> Result<(), String> {
    if report.parity.is_some_and(|parity| !parity.holds()) {
        return Err("row parity is broken: stored episodes differ from acknowledged ones".to_owned());
    }
    // A ladder climbs until something gives, so a void rung is part of its result.
    if report.mode == "open" && report.runs.iter().any(|run| run.voided) {
        return Err("a run is void: more than 1 % of its requests started late; free a core for the generator".into());
    }
    Ok(())
}

fn requests(common: &Common) -> Result<Vec<Prepared>, Error> {
    let mut files = common.requests.clone();
    if let Some(data) = &common.data {
        files.extend(dialogue_files(data)?);
    }
    let selection =
        Selection { split: common.split.clone(), tenants: common.tenant.clone(), with_gold: common.with_gold };
    let bodies = read_bodies(&files, &selection)?;
    let keys = common.keys.as_deref().map(read_keys).transpose()?;
    prepare(bodies, keys.as_ref(), common.seed)
}
