//! Learning curve of an algorithm on the toy world, with what it costs: `toy_curve ALGO SEED STEPS`.
//!
//! The sizes are those of a published trainer's measurement, so that curves can be laid side by side: 919 thousand
//! weights, 4 questions of 16 tokens, 8 completions of up to 32 tokens, temperature 1, learning rate 1e-3.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement on the command line")]

#[path = "../tests/rl_loop/toy.rs"]
mod toy;

use std::ops::ControlFlow;

use recast_learner::rl::{Algorithm, Learner, MonitorSettings, RlSettings};
use toy::{END, Toy};

/// Seconds of processor time of this process, and its largest resident size in MiB.
fn cost() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let ticks: f64 = behind_name.split_whitespace().skip(11).take(2).map(|x| x.parse::<f64>().unwrap()).sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // the kernel counts in hundredths of a second
    (ticks / 100.0, kib / 1024.0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, seed, steps] = arguments.as_slice() else {
        println!("usage: toy_curve ALGO SEED STEPS");
        return;
    };
    let Some(algorithm) = Algorithm::of(name) else {
        println!("no algorithm {name}, known are {:?}", Algorithm::ALL.map(|(name, _)| name));
        return;
    };
    let (seed, steps): (u64, u64) = (seed.parse().unwrap(), steps.parse().unwrap());
    let toy = Toy { vocabulary: 1024, hidden: 128, layers: 4, prompt: 16, seed };
    let settings = RlSettings {
        questions: 4,
        learning_rate: 1e-3,
        warmup: 0,
        seed,
        overlong: None,
        ..RlSettings::of(algorithm, 32, END)
    };
    // the curve is to be seen whole: it ends in a policy without entropy, and that is no failure here
    let limits = MonitorSettings {
        least_entropy_share: 0.0,
        most_approx_kl: 1.0,
        most_duplicate: 1.0,
        most_skips: 1000,
        ..MonitorSettings::default()
    };
    let mut learner = Learner::new(toy.model(), None, settings, limits).unwrap();
    let before = cost().0;
    let mut rewards = Vec::new();
    let mut tokens = 0;
    println!("step reward entropy grad_norm clip explained_variance");
    let report = learner
        .run(&toy, &toy, steps, None, &mut |report| {
            let m = &report.metrics;
            rewards.push(m.reward_mean);
            tokens += m.tokens;
            if m.step % 10 == 9 || m.step == 0 {
                let clip = m.clip_fraction.first().copied().unwrap_or_default();
                let explained = m.explained_variance.unwrap_or_default();
                println!(
                    "{} {:.3} {:.3} {:.3} {clip:.3} {explained:.3}",
                    m.step + 1,
                    m.reward_mean,
                    m.entropy,
                    m.grad_norm
                );
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let (now, peak) = cost();
    let first = |least: f64| rewards.iter().position(|reward| *reward >= least).map(|step| step + 1);
    println!(
        "{name} seed {seed}: reward >= .5 at {:?}, >= .9 at {:?}, >= .99 at {:?}; {:.3} CPU s/step, {:.0} tokens/step, peak {peak:.0} MiB, {} alarms",
        first(0.5),
        first(0.9),
        first(0.99),
        (now - before) / steps as f64,
        tokens as f64 / steps as f64,
        report.alarms.len()
    );
    if let Some((step, alarm)) = report.alarms.last() {
        println!("last alarm at step {step}: {}: {}", alarm.name, alarm.reason);
    }
}
