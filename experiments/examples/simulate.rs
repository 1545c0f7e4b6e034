//! Prints how often each sequential procedure claims a gain, how soon, and what peeking does instead.
//!
//! `cargo run -p recast-experiments --example simulate -- 4000` simulates 4,000 experiments a cell, which takes a few
//! seconds; without a number there are 1,000. The seed is fixed, so the table is the same every time.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]

use recast_experiments::{Goal, PairModel, Procedure, Search, Simulation, StatsError, plan};

const EFFECTS: [f64; 4] = [0.0, 0.02, 0.04, 0.08];
/// Differences of the top-1 score as they come: 55 % ties, and this spread with the ties counted in.
const SD: f64 = 0.266;
const TIES: f64 = 0.55;

/// A row of the table: what it is called, the first look, the pairs between looks, and the procedure.
type Row = (&'static str, u64, u64, Procedure);

const ROWS: [Row; 7] = [
    ("one look at 1,000 pairs", 1_000, 1, Procedure::Peeking),
    ("peeking at 39 looks (wrong)", 50, 25, Procedure::Peeking),
    ("asymptotic, every pair from 50", 50, 1, Procedure::Asymptotic { tightest_at: 250 }),
    ("asymptotic, 39 looks", 50, 25, Procedure::Asymptotic { tightest_at: 250 }),
    ("mixture tau 0.1, 39 looks", 50, 25, Procedure::Mixture { tau: 0.1 }),
    ("empirical Bernstein, every pair", 1, 1, Procedure::EmpiricalBernstein),
    ("betting, every pair", 1, 1, Procedure::Betting),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(1_000), |argument| argument.parse())?;
    gains(runs)?;
    rollbacks(runs)?;
    plans()?;
    Ok(())
}

fn simulation(effect: f64, runs: u64) -> Simulation {
    Simulation {
        model: PairModel::of_unit_metric(effect, SD, TIES),
        margin: 0.0,
        alpha: 0.025,
        pairs: 1_000,
        first_look: 1,
        look_every: 1,
        runs,
        seed: 11,
    }
}

fn gains(runs: u64) -> Result<(), StatsError> {
    println!("Share of {runs} experiments of 1,000 pairs that claim a gain, alpha 0.025 on one side");
    print!("{:<34}", "mean difference");
    EFFECTS.iter().for_each(|effect| print!("{effect:>9}"));
    println!();
    for (name, first_look, look_every, procedure) in ROWS {
        print!("{name:<34}");
        for effect in EFFECTS {
            let rate = Simulation { first_look, look_every, ..simulation(effect, runs) }.claim_rate(procedure)?;
            print!("{rate:>9.4}");
        }
        println!();
    }
    let lenient = Simulation { alpha: 0.05, ..simulation(0.0, runs) }.claim_rate(Procedure::Betting)?;
    println!("betting at 0.05 claims a gain where there is none in {lenient:.4}\n");
    Ok(())
}

fn rollbacks(runs: u64) -> Result<(), StatsError> {
    println!("Pairs until a loss is noticed, betting at alpha 0.05, of 5,000");
    println!("{:>8}{:>8}{:>10}{:>10}{:>12}", "loss", "margin", "median", "95 %", "within 250");
    for (loss, margin) in [(0.04, 0.0), (0.08, 0.0), (0.1, 0.0), (0.1, 0.02)] {
        // The test sees the differences with their sign turned.
        let watch = Simulation { alpha: 0.05, margin, pairs: 5_000, ..simulation(loss, runs) };
        let mut claims = watch.claims(Procedure::Betting)?;
        claims.sort_by_key(|claim| claim.unwrap_or(u64::MAX));
        let within = Simulation { pairs: 250, ..watch }.claim_rate(Procedure::Betting)?;
        let at = |part: usize| claims[(claims.len() * part / 100).min(claims.len() - 1)].unwrap_or(u64::MAX);
        println!("{loss:>8}{margin:>8}{:>10}{:>10}{within:>12.4}", at(50), at(95));
    }
    println!();
    Ok(())
}

fn plans() -> Result<(), StatsError> {
    println!("Pairs needed for power 0.8 at alpha 0.025 on one side");
    println!("{:>8}{:>10}{:>12}{:>12}{:>12}", "gain", "one look", "median", "at power", "95 %");
    for effect in [0.02, 0.04, 0.08] {
        let goal = Goal { model: PairModel::of_unit_metric(effect, SD, TIES), alpha: 0.025, power: 0.8 };
        let found = plan(&goal, Search::default())?;
        let shown = |pairs: Option<u64>| pairs.map_or("longer".to_owned(), |pairs| pairs.to_string());
        let (median, power) = (shown(found.sequential_median), shown(found.sequential_at_power));
        println!("{effect:>8}{:>10}{median:>12}{power:>12}{:>12}", found.fixed, shown(found.sequential_p95));
    }
    Ok(())
}
