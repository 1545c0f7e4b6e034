use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant as Clock};

use async_trait::async_trait;
use recast_domain::{Degradation, PolicyId, Rewrite, RewriteSource};
use recast_rewriter::{
    InvalidRewrite, Ladder, RewriteCache, RewriteError, RewriteLimits, RewriteRequest, Rewriter, Rewritten,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::request;

/// What a double does.
#[derive(Clone)]
enum Act {
    Write(&'static str),
    Fail,
    Invalid,
    Hang,
    /// Writes once it is told to.
    Wait(Arc<Notify>),
}

struct Double {
    policy: &'static str,
    act: Act,
    asked: AtomicUsize,
}

impl Double {
    fn new(policy: &'static str, act: Act) -> Arc<Self> {
        Arc::new(Self { policy, act, asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Rewriter for Double {
    fn policy(&self) -> PolicyId {
        self.policy.parse().unwrap()
    }

    async fn rewrite(&self, _request: &RewriteRequest, _deadline: Instant) -> recast_rewriter::Result<Rewrite> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let source = if self.policy == "remote" { RewriteSource::Remote } else { RewriteSource::Local };
        match &self.act {
            Act::Write(text) => Ok(Rewrite::plain(*text, source, self.policy())),
            Act::Fail => Err(RewriteError::Engine("broken".to_owned())),
            Act::Invalid => Err(RewriteError::Invalid(InvalidRewrite::Junk)),
            Act::Hang => std::future::pending().await,
            Act::Wait(told) => {
                told.notified().await;
                Ok(Rewrite::plain("waited", source, self.policy()))
            }
        }
    }
}

fn ladder(local: Option<Arc<Double>>, remote: Option<Act>, places: usize) -> Ladder {
    let cache = RewriteCache::new(100, Duration::from_secs(60));
    let remote = remote.map(|act| Double::new("remote", act) as Arc<dyn Rewriter>);
    Ladder::new(local.map(|local| local as Arc<dyn Rewriter>), remote, cache, places)
}

fn limits(local_ms: u64, remote_ms: u64) -> RewriteLimits {
    let now = Instant::now();
    let request = now + Duration::from_secs(30);
    RewriteLimits {
        local: now + Duration::from_millis(local_ms),
        remote: Duration::from_millis(remote_ms),
        request,
        use_cache: true,
    }
}

fn expect(rewritten: &Rewritten, text: &str, source: RewriteSource, degraded: &[Degradation]) {
    assert_eq!((rewritten.rewrite.text.as_str(), rewritten.rewrite.source), (text, source));
    assert_eq!(rewritten.degraded, degraded);
}

#[tokio::test]
async fn each_rung_stands_in_for_the_one_above() {
    use Degradation as D;
    let cases = [
        (Some(Act::Write("local")), Some(Act::Write("remote")), "local", RewriteSource::Local, vec![]),
        (Some(Act::Fail), Some(Act::Write("remote")), "remote", RewriteSource::Remote, vec![D::RewriteFailed]),
        (Some(Act::Invalid), Some(Act::Write("remote")), "remote", RewriteSource::Remote, vec![D::RewriteInvalid]),
        (Some(Act::Write("。")), Some(Act::Write("remote")), "remote", RewriteSource::Remote, vec![D::RewriteInvalid]),
        (Some(Act::Hang), Some(Act::Write("remote")), "remote", RewriteSource::Remote, vec![D::RewriteTimeout]),
        (
            Some(Act::Fail),
            Some(Act::Fail),
            "q",
            RewriteSource::PassThrough,
            vec![D::RewriteFailed, D::RemoteRewriteFailed],
        ),
        (
            Some(Act::Fail),
            Some(Act::Hang),
            "q",
            RewriteSource::PassThrough,
            vec![D::RewriteFailed, D::RemoteRewriteFailed],
        ),
        (
            Some(Act::Fail),
            Some(Act::Write(" ")),
            "q",
            RewriteSource::PassThrough,
            vec![D::RewriteFailed, D::RemoteRewriteFailed],
        ),
        (Some(Act::Fail), None, "q", RewriteSource::PassThrough, vec![D::RewriteFailed]),
        (None, Some(Act::Write("remote")), "remote", RewriteSource::Remote, vec![]),
        (None, Some(Act::Fail), "q", RewriteSource::PassThrough, vec![D::RemoteRewriteFailed]),
        (None, None, "q", RewriteSource::PassThrough, vec![]),
    ];
    for (local, remote, text, source, degraded) in cases {
        let ladder = ladder(local.map(|act| Double::new("p1", act)), remote, 4);
        let started = Clock::now();
        expect(&ladder.rewrite(&request("a", "q"), &limits(50, 50)).await, text, source, &degraded);
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(ladder.waiting(), 0);
    }
}

#[tokio::test]
async fn kept_rewrites_save_work_and_stand_in_for_a_newer_policy() {
    let old = Double::new("p1", Act::Write("local"));
    let ladder = ladder(Some(old.clone()), Some(Act::Write("remote")), 4);
    let ask = async |tenant: &str, limits: RewriteLimits| ladder.rewrite(&request(tenant, "q"), &limits).await;
    expect(&ask("a", limits(1000, 1000)).await, "local", RewriteSource::Local, &[]);
    expect(&ask("a", limits(1000, 1000)).await, "local", RewriteSource::Cached, &[]);
    expect(&ask("b", limits(1000, 1000)).await, "local", RewriteSource::Local, &[]);
    let anew = RewriteLimits { use_cache: false, ..limits(1000, 1000) };
    expect(&ask("a", anew).await, "local", RewriteSource::Local, &[]);
    assert_eq!(old.asked.load(Ordering::SeqCst), 3);
    ladder.set_local(Some(Double::new("p2", Act::Fail)));
    let stand_in = ask("a", limits(1000, 1000)).await;
    expect(&stand_in, "local", RewriteSource::Cached, &[Degradation::RewriteFailed]);
    assert_eq!(stand_in.rewrite.policy.as_str(), "p1");
    expect(&ask("c", limits(1000, 1000)).await, "remote", RewriteSource::Remote, &[Degradation::RewriteFailed]);
    let anew = RewriteLimits { use_cache: false, ..limits(1000, 1000) };
    expect(&ask("a", anew).await, "remote", RewriteSource::Remote, &[Degradation::RewriteFailed]);
}

#[tokio::test]
async fn a_full_queue_degrades_at_once() {
    let told = Arc::new(Notify::new());
    let local = Double::new("p1", Act::Wait(told.clone()));
    let ladder = Arc::new(ladder(Some(local.clone()), None, 2));
    let ask = |query: &'static str| {
        let ladder = ladder.clone();
        tokio::spawn(async move { ladder.rewrite(&request("a", query), &limits(20_000, 100)).await })
    };
    let (first, second) = (ask("q1"), ask("q2"));
    while local.asked.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ladder.waiting(), 2);
    let third = ask("q3").await.unwrap();
    expect(&third, "q3", RewriteSource::PassThrough, &[Degradation::RewriteOverloaded]);
    told.notify_waiters();
    expect(&first.await.unwrap(), "waited", RewriteSource::Local, &[]);
    expect(&second.await.unwrap(), "waited", RewriteSource::Local, &[]);
    assert_eq!(ladder.waiting(), 0);
}

#[tokio::test]
async fn equal_questions_share_one_place_and_one_run() {
    let told = Arc::new(Notify::new());
    let local = Double::new("p1", Act::Wait(told.clone()));
    let ladder = Arc::new(ladder(Some(local.clone()), None, 1));
    let asks: Vec<_> = (0..8)
        .map(|_| {
            let ladder = ladder.clone();
            tokio::spawn(async move { ladder.rewrite(&request("a", "q"), &limits(20_000, 100)).await })
        })
        .collect();
    while local.asked.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    told.notify_waiters();
    for ask in asks {
        let rewritten = ask.await.unwrap();
        assert_eq!(rewritten.rewrite.text, "waited");
        assert!(rewritten.degraded.is_empty());
    }
    assert_eq!(local.asked.load(Ordering::SeqCst), 1);
}
