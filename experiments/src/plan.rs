use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_level, check_positive, check_share};
use crate::normal::normal_quantile;
use crate::pair_model::PairModel;
use crate::simulate::{Procedure, Simulation};
use crate::win_rate::upper_tail;

/// What an experiment should be able to find.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The pairs, with the smallest effect worth finding. A loss is planned as a gain of the same size.
    pub model: PairModel,
    /// Probability allowed for a claim that is wrong, on one side: a two-sided test at 0.05 is planned with 0.025.
    pub alpha: f64,
    /// Probability wanted of finding the effect, such as 0.8.
    pub power: f64,
}

/// How long the simulation behind a plan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Experiments simulated.
    pub runs: u64,
    /// Pairs after which a simulated experiment gives up.
    pub longest: u64,
    /// Seed of the simulation.
    pub seed: u64,
}

impl Default for Search {
    /// 400 experiments of up to 20,000 pairs: a second of work or so.
    fn default() -> Self {
        Self { runs: 400, longest: 20_000, seed: 0 }
    }
}

/// Pairs that an effect needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Pairs for a single look at the end: ((z of 1 - alpha + z of power) sd / effect)^2, rounded up.
    pub fixed: u64,
    /// Pairs after which the betting test has found the effect in half of the experiments; nothing where it needs
    /// longer than the search went on.
    pub sequential_median: Option<u64>,
    /// The same in 95 % of them.
    pub sequential_p95: Option<u64>,
    /// The same in the share of them that the goal calls its power.
    pub sequential_at_power: Option<u64>,
}

/// Plans the pairs for a mean difference, looked at once or after every pair.
///
/// # Errors
/// `alpha` is not between 0 and 1/2, `power` not between 0 and 1, the effect not above 0, or no pairs can be as the
/// model says.
pub fn plan(goal: &Goal, search: Search) -> Result<Plan, StatsError> {
    let Goal { model, alpha, power } = *goal;
    check_level(2.0 * alpha)?;
    check_level(power)?;
    check_positive("effect", model.effect)?;
    let z = normal_quantile(1.0 - alpha) + normal_quantile(power);
    // A power below alpha needs no pairs by the formula; one pair is the least there is.
    let root = z.max(0.0) * model.sd / model.effect;

    let simulation = Simulation {
        model,
        margin: 0.0,
        alpha,
        pairs: search.longest,
        first_look: 1,
        look_every: 1,
        runs: search.runs,
        seed: search.seed,
    };
    let mut claims = simulation.claims(Procedure::Betting)?;
    // Experiments that gave up stand last: `None` is later than any number of pairs.
    claims.sort_by_key(|claim| claim.unwrap_or(u64::MAX));
    Ok(Plan {
        fixed: whole(root * root),
        sequential_median: reached(&claims, 0.5),
        sequential_p95: reached(&claims, 0.95),
        sequential_at_power: reached(&claims, power),
    })
}

/// Pairs that a win rate needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinRatePlan {
    /// Pairs with a winner.
    pub decided: u64,
    /// All pairs, with the ties that are to be expected.
    pub pairs: u64,
}

/// The most pairs with a winner for which the binomial distribution is summed exactly.
const EXACT: u64 = 100_000;

/// Plans the pairs after which the Wilson interval of a win rate lies above 1/2, looked at once.
///
/// `alpha` is one-sided, as in [`Goal`]. The Wilson interval excludes 1/2 where wins exceed n/2 + z sqrt(n)/2; the
/// power is the binomial probability of that, and the number returned is the least from which on it never falls short
/// again. Beyond 100,000 pairs with a winner the normal approximation stands in.
///
/// # Errors
/// `win_rate` is not above 1/2 and below 1, `tie_share` not below 1, or `alpha` or `power` out of range.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn plan_win_rate(win_rate: f64, tie_share: f64, alpha: f64, power: f64) -> Result<WinRatePlan, StatsError> {
    check_level(2.0 * alpha)?;
    check_level(power)?;
    check_share("win_rate", win_rate)?;
    check_share("tie_share", tie_share)?;
    check_positive("win_rate above 1/2", win_rate - 0.5)?;
    check_positive("the share of pairs without a tie", 1.0 - tie_share)?;
    check_positive("the share of losses", 1.0 - win_rate)?;
    let (z_alpha, z_power) = (normal_quantile(1.0 - alpha), normal_quantile(power).max(0.0));
    let spread = (win_rate * (1.0 - win_rate)).sqrt();
    let approximate = whole(((0.5 * z_alpha + z_power * spread) / (win_rate - 0.5)).powi(2));

    let powerful = |n: u64| {
        let most = (0.5 * n as f64 + 0.5 * z_alpha * (n as f64).sqrt()).floor();
        upper_tail(whole(most + 1.0), n, win_rate) >= power
    };
    let decided = if approximate > EXACT {
        approximate
    } else {
        // Whole pairs make the power rise in a saw-tooth, around the smooth approximation.
        let last = approximate + approximate / 2 + 60;
        1 + (1..=last).rev().find(|n| !powerful(*n)).unwrap_or(0)
    };
    Ok(WinRatePlan { decided, pairs: whole((decided as f64 / (1.0 - tie_share)).ceil()) })
}

/// The claim by which `share` of the experiments, sorted, had made theirs.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn reached(sorted: &[Option<u64>], share: f64) -> Option<u64> {
    let needed = whole((share * sorted.len() as f64).ceil()).max(1);
    let index = usize::try_from(needed - 1).ok()?;
    sorted.get(index).copied().flatten()
}

/// A count from a number that is not negative, rounded up, at least 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and the number is positive")]
fn whole(number: f64) -> u64 {
    (number.ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(effect: f64) -> Goal {
        Goal { model: PairModel::of_unit_metric(effect, 0.266, 0.55), alpha: 0.025, power: 0.8 }
    }

    #[test]
    fn the_fixed_plan_is_the_formula() {
        let search = Search { runs: 1, longest: 1, seed: 0 };
        // (1.9600 + 0.8416)^2 0.266^2 / 0.04^2 = 347.1
        assert_eq!(plan(&goal(0.04), search).unwrap().fixed, 348);
        assert_eq!(plan(&goal(0.08), search).unwrap().fixed, 87);
    }

    #[test]
    fn the_sequential_plan_is_sorted_and_repeatable() {
        let search = Search { runs: 200, longest: 3_000, seed: 3 };
        let plan_1 = plan(&goal(0.08), search).unwrap();
        assert_eq!(plan(&goal(0.08), search).unwrap(), plan_1);
        let (median, power, most) = (plan_1.sequential_median, plan_1.sequential_at_power, plan_1.sequential_p95);
        assert!(median.unwrap() > 30 && median < power && power < most, "{plan_1:?}");
        // Looking after every pair costs pairs, but not many times as many.
        assert!(power.unwrap() > plan_1.fixed && power.unwrap() < 4 * plan_1.fixed, "{plan_1:?}");
    }

    #[test]
    fn a_search_that_gives_up_says_so() {
        let plan = plan(&goal(0.01), Search { runs: 50, longest: 200, seed: 0 }).unwrap();
        assert_eq!((plan.sequential_median, plan.sequential_p95), (None, None));
    }

    #[test]
    fn the_plan_of_a_win_rate_has_its_power() {
        let plan = plan_win_rate(0.6, 0.5, 0.025, 0.8).unwrap();
        // The textbook's ((1.96 / 2 + 0.8416 sqrt(0.24)) / 0.1)^2 = 193.9; the saw-tooth adds a few.
        assert!((194..=205).contains(&plan.decided), "{plan:?}");
        assert_eq!(plan.pairs, 2 * plan.decided);
        let wins_needed = |n: u64| (0..=n).find(|wins| crate::wilson(*wins, n, 0.95).unwrap().lower > 0.5).unwrap();
        let power = |n: u64| upper_tail(wins_needed(n), n, 0.6);
        assert!(power(plan.decided) >= 0.8 && power(plan.decided - 1) < 0.8);
    }

    #[test]
    fn large_plans_are_approximate_and_quick() {
        let plan = plan_win_rate(0.501, 0.0, 0.025, 0.9).unwrap();
        assert!((2_600_000..2_650_000).contains(&plan.decided), "{plan:?}");
    }

    #[test]
    fn refuses_goals_that_no_experiment_reaches() {
        let search = Search::default();
        assert_eq!(plan(&goal(0.0), search), Err(StatsError::NotPositive { name: "effect", value: 0.0 }));
        assert_eq!(plan(&Goal { power: 1.0, ..goal(0.1) }, search), Err(StatsError::Level(1.0)));
        assert!(matches!(plan_win_rate(0.5, 0.0, 0.025, 0.8), Err(StatsError::NotPositive { .. })));
        assert!(matches!(plan_win_rate(0.6, 1.0, 0.025, 0.8), Err(StatsError::NotPositive { .. })));
    }
}
