//! `recast experiment plan`: how many pairs an effect needs.

use std::fmt::Write;

use anyhow::{Context, bail};
use recast_experiments::{Goal, PairModel, Plan, Search, WinRatePlan, plan, plan_win_rate};
use serde::Serialize;

use crate::args::PlanArgs;
use crate::out;

/// Everything that a plan says.
#[derive(Debug, Serialize)]
struct Planned {
    /// What was asked for; its alpha is that of one side.
    goal: Goal,
    /// Pairs for the mean difference.
    mean: Plan,
    /// The longest search of the simulation: where a sequential figure is missing, it needs more pairs than this.
    longest: u64,
    /// Pairs for the win rate, where one was given.
    win_rate: Option<WinRatePlan>,
}

/// `recast experiment plan`
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let planned = planned(args)?;
    out::line(&if args.json { serde_json::to_string_pretty(&planned)? } else { text(args, &planned) });
    Ok(())
}

fn planned(args: &PlanArgs) -> anyhow::Result<Planned> {
    for (name, share) in [("--alpha", args.alpha.0), ("--power", args.power.0)] {
        if share <= 0.0 || share >= 1.0 {
            bail!("{name} {share}: must lie between 0 and 1, and be neither");
        }
    }
    if args.ties.0 >= 1.0 {
        bail!("--ties {}: must be below 1: pairs that are all ties show no effect", args.ties.0);
    }
    // People name the chance of an error on either side; a plan is for the one side where the effect lies.
    let alpha = args.alpha.0 / 2.0;
    let (effect, sd, ties) = (args.effect.abs(), args.sd, args.ties.0);
    let model = PairModel::of_unit_metric(effect, sd, ties);
    let goal = Goal { model, alpha, power: args.power.0 };
    let search = Search { seed: args.seed, ..Search::default() };
    let mean = plan(&goal, search).context("--effect, --sd and --ties do not go together")?;
    let win_rate = args.win_rate.map(|rate| plan_win_rate(rate.0, ties, alpha, args.power.0));
    let win_rate = win_rate.transpose().context("--win-rate: give the share that the better arm wins")?;
    Ok(Planned { goal, mean, longest: search.longest, win_rate })
}

fn text(args: &PlanArgs, planned: &Planned) -> String {
    let Planned { mean, longest, win_rate, .. } = planned;
    let sequential =
        |pairs: Option<u64>| pairs.map_or_else(|| format!("more than {longest}"), |pairs| pairs.to_string());
    let power = 100.0 * args.power.0;
    let mut out = format!(
        "a mean difference of {} with a standard deviation of {}, {} % ties, alpha {} (both sides), power {power} %\n\n",
        args.effect,
        args.sd,
        100.0 * args.ties.0,
        args.alpha.0,
    );
    let mut row = |label: &str, pairs: String| {
        let _ = writeln!(out, "| {label} | {pairs} |");
    };
    row("how the pairs are looked at", "pairs".to_owned());
    row("---", "---".to_owned());
    row("once, at the end", mean.fixed.to_string());
    row("after every pair: half of such experiments are done by", sequential(mean.sequential_median));
    row(&format!("after every pair: {power} % are done by"), sequential(mean.sequential_at_power));
    row("after every pair: 95 % are done by", sequential(mean.sequential_p95));
    if let (Some(plan), Some(rate)) = (win_rate, args.win_rate) {
        row(&format!("once, by a win rate of {} (pairs with a winner)", rate.0), plan.decided.to_string());
        row(&format!("once, by a win rate of {} (all pairs)", rate.0), plan.pairs.to_string());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Fraction;

    fn args() -> PlanArgs {
        PlanArgs {
            effect: 0.1,
            sd: 0.3,
            ties: Fraction(0.2),
            alpha: Fraction(0.05),
            power: Fraction(0.8),
            win_rate: Some(Fraction(0.6)),
            seed: 7,
            json: false,
        }
    }

    #[test]
    fn a_single_look_needs_what_the_formula_says() {
        let planned = planned(&args()).unwrap();
        // ((1.960 + 0.842) * 0.3 / 0.1)^2 = 70.6
        assert_eq!(planned.mean.fixed, 71);
        let median = planned.mean.sequential_median.unwrap();
        assert!(median > 20 && median < 500, "{median}");
        assert!(planned.win_rate.unwrap().pairs > planned.win_rate.unwrap().decided);
    }

    #[test]
    fn the_sign_of_the_effect_changes_nothing() {
        let loss = PlanArgs { effect: -0.1, ..args() };
        assert_eq!(planned(&loss).unwrap().mean, planned(&args()).unwrap().mean);
    }

    #[test]
    fn what_cannot_be_planned_is_named() {
        let wrong = [
            (PlanArgs { alpha: Fraction(0.0), ..args() }, "--alpha"),
            (PlanArgs { power: Fraction(1.0), ..args() }, "--power"),
            (PlanArgs { ties: Fraction(1.0), ..args() }, "--ties"),
            (PlanArgs { effect: 0.0, ..args() }, "--effect"),
            (PlanArgs { sd: f64::NAN, ..args() }, "--sd"),
            (PlanArgs { win_rate: Some(Fraction(0.4)), ..args() }, "--win-rate"),
        ];
        for (args, name) in wrong {
            let error = format!("{:#}", planned(&args).unwrap_err());
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_search_that_was_too_short_says_so() {
        let planned = planned(&args()).unwrap();
        let missing = Planned { mean: Plan { sequential_p95: None, ..planned.mean }, ..planned };
        assert!(text(&args(), &missing).contains("more than 20000"));
    }
}
