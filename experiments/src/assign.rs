use crate::definition::Definition;

/// The arm of a unit: always the same one, in shares of the weights.
///
/// The arms lie side by side on a line in their order, each as long as its weight, and the unit's hash is a point on
/// it. A change of weights therefore moves only the units between the old and the new borders: with two arms as few
/// as possible, with more of them the borders behind the changed arm move too. Put the arm that will grow last.
/// The experiment's id is hashed as well, so that experiments deal units independently of each other.
///
/// Where no weight is above 0, which [`crate::check`] refuses, the answer is the control.
#[must_use]
pub fn assign<'a>(definition: &'a Definition, unit: &str) -> &'a str {
    let total: f64 = definition.arms.iter().map(|arm| arm.weight).sum();
    let mut point = unit_interval("assign", definition, unit) * total;
    for arm in &definition.arms {
        if point < arm.weight {
            return &arm.name;
        }
        point -= arm.weight;
    }
    // Rounding can leave a point just behind the last border.
    let last = definition.arms.iter().rev().find(|arm| arm.weight > 0.0);
    last.map_or(definition.control.as_str(), |arm| &arm.name)
}

/// Whether a tenant's request is sampled for the shadow. `key` names the request, such as its episode id. A higher rate
/// samples what a lower one did, and more.
#[must_use]
pub fn sampled(definition: &Definition, tenant: &str, key: &str) -> bool {
    unit_interval("sample", definition, key) < definition.sample_rate_of(tenant)
}

/// Whether a sampled request runs the control arm once more instead of the other one. Independent of [`sampled`].
#[must_use]
pub fn control_run(definition: &Definition, key: &str) -> bool {
    unit_interval("control", definition, key) < definition.control_rate
}

/// A number in [0, 1) from BLAKE3: 53 bits, as many as an `f64` holds.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn unit_interval(purpose: &str, definition: &Definition, key: &str) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for part in [purpose, &definition.salt, &definition.id, key] {
        // With its length in front, no two lists of parts read the same.
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes()).update(part.as_bytes());
    }
    let bits = hasher.finalize().as_bytes()[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Arm, Kind};
    use crate::srm::sample_ratio;

    const UNITS: usize = 100_000;

    fn split(id: &str, weights: &[f64]) -> Definition {
        let mut definition = Definition::between(id, Kind::Split, "0", "1");
        let arm = |(index, weight): (usize, &f64)| Arm {
            name: index.to_string(),
            weight: *weight,
            rewriter: "configured".to_owned(),
        };
        definition.arms = weights.iter().enumerate().map(arm).collect();
        definition
    }

    fn dealt(definition: &Definition) -> Vec<usize> {
        (0..UNITS).map(|unit| assign(definition, &format!("user/{unit}")).parse().unwrap()).collect()
    }

    fn counts(arms: usize, dealt: &[usize]) -> Vec<u64> {
        let mut counts = vec![0; arms];
        dealt.iter().for_each(|arm| counts[*arm] += 1);
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [&[1.0, 1.0][..], &[9.0, 1.0], &[0.5, 0.3, 0.2], &[1.0, 0.0, 3.0]] {
            let arms = dealt(&split("shares", weights));
            let ratio = sample_ratio(&counts(weights.len(), &arms), weights).unwrap();
            assert!(ratio.p > 0.001, "{weights:?}: {ratio:?}");
        }
    }

    #[test]
    fn a_unit_keeps_its_arm() {
        let definition = split("sticky", &[1.0, 1.0]);
        assert_eq!(dealt(&definition), dealt(&definition.clone()));
    }

    #[test]
    fn experiments_and_salts_deal_independently() {
        let first = split("first", &[1.0, 1.0]);
        let salted = Definition { salt: "again".to_owned(), ..first.clone() };
        for other in [split("second", &[1.0, 1.0]), salted] {
            let joint: Vec<usize> = dealt(&first).iter().zip(dealt(&other)).map(|(a, b)| a * 2 + b).collect();
            let ratio = sample_ratio(&counts(4, &joint), &[1.0; 4]).unwrap();
            assert!(ratio.p > 0.001, "{ratio:?}");
        }
    }

    #[test]
    fn a_changed_weight_moves_no_more_units_than_it_must() {
        let (before, after) = (dealt(&split("grow", &[0.9, 0.1])), dealt(&split("grow", &[0.8, 0.2])));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(before, after)| (**before, **after) == (0, 1)), "units moved the wrong way");
        let share = moved.len() as f64 / UNITS as f64;
        assert!((share - 0.1).abs() < 0.005, "{share} of the units moved");
    }

    #[test]
    fn sampling_keeps_to_the_tenants_rate_and_grows_with_it() {
        let mut definition = split("sample", &[1.0, 1.0]);
        definition.sample_rate = 0.1;
        definition.sample_rates.insert("zlkt".to_owned(), 0.5);
        definition.control_rate = 0.2;
        let keys: Vec<String> = (0..UNITS).map(|key| key.to_string()).collect();
        let taken = |tenant| keys.iter().filter(|key| sampled(&definition, tenant, key)).collect::<Vec<_>>();
        let (few, many) = (taken("chengla"), taken("zlkt"));
        for (sample, rate) in [(&few, 0.1), (&many, 0.5)] {
            assert!((sample.len() as f64 / UNITS as f64 - rate).abs() < 0.006, "{} of {rate}", sample.len());
        }
        let many: std::collections::HashSet<_> = many.into_iter().collect();
        assert!(few.iter().all(|key| many.contains(key)));
        // Were the two draws one, every sampled request would be a control run, or none.
        let controls = few.iter().filter(|key| control_run(&definition, key)).count() as f64 / few.len() as f64;
        assert!((controls - 0.2).abs() < 0.02, "{controls}");
    }

    #[test]
    fn rates_of_nought_and_one_are_exact() {
        let mut definition = split("edges", &[1.0, 1.0]);
        assert!((0..1000).all(|key| !sampled(&definition, "t", &key.to_string())));
        definition.sample_rate = 1.0;
        assert!((0..1000).all(|key| sampled(&definition, "t", &key.to_string())));
    }
}
