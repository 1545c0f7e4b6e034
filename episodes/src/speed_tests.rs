//! Measurements, not tests: `cargo test -p recast-episodes --lib -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recast_config::Durability;
use recast_domain::{Episode, EpisodeId};

use crate::EpisodeStore;
use crate::test_site::Site;
use crate::testing::{episode, settings};

/// CPU time of this process so far, all threads, in microseconds.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // user and system time are fields 14 and 15, in ticks of 10 ms; the name in field 2 ends with the last ')'
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|text| text.parse().unwrap())
        .collect();
    (fields[0] + fields[1]) * 10_000
}

async fn measure(site: &Site, durability: Durability, clients: usize, seconds: u64) {
    let settings = recast_config::EpisodeSettings { batch_max: 512, ..settings(durability) };
    let store = Arc::new(EpisodeStore::open(site.place(), &settings).unwrap());
    let mut sample = episode("fivedoctors", 1);
    sample.hits = vec![sample.hits[0].clone(); 5];
    let bytes = serde_json::to_string(&sample).unwrap().len();
    let (start, cpu) = (Instant::now(), cpu_us());
    let end = start + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (store, sample) = (Arc::clone(&store), sample.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut refused = 0_u32;
                while Instant::now() < end {
                    let episode = Episode { id: EpisodeId::now(), ..sample.clone() };
                    let begin = Instant::now();
                    match store.append(episode).await {
                        Ok(()) => latencies.push(begin.elapsed().as_micros()),
                        Err(_) => {
                            refused += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                (latencies, refused)
            })
        })
        .collect();
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (of_task, refused_of_task) = task.await.unwrap();
        latencies.extend(of_task);
        refused += refused_of_task;
    }
    store.close().await;
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_us() - cpu);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let stored = store.health().stored;
    eprintln!(
        "{durability:?} in {} clients {clients:>2}, {bytes} bytes: {:.0} episodes/s, p50 {} us, p99 {} us, {:.1} us CPU each, refused {refused}",
        if site.name().is_empty() { "a file" } else { "PostgreSQL" },
        stored as f64 / elapsed,
        at(0.5),
        at(0.99),
        cpu as f64 / stored as f64,
    );
    assert_eq!(stored, latencies.len() as u64, "row parity");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run alone"]
async fn speed() {
    for site in [Some(Site::file()), Site::server()].into_iter().flatten() {
        for _ in 0..3 {
            for clients in [1, 32] {
                measure(&site, Durability::Strict, clients, 3).await;
            }
            measure(&site, Durability::Group, 1, 2).await;
        }
    }
}
