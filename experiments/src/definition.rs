use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::guardrails::Guardrails;
use crate::report::Metric;

/// How the arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The control arm answers; the other one runs on a sample of the requests after the reply has gone.
    Shadow,
    /// Each unit is answered by one arm.
    Split,
    /// Both arms answer, and their rankings are merged into one.
    Interleave,
}

/// What stays with one arm of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// The asker; a request that does not name one is a unit of its own.
    #[default]
    User,
    /// The conversation; a request outside of one is a unit of its own.
    Conversation,
    /// The request.
    Request,
}

/// One of the ways of rewriting that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in reports and episodes.
    pub name: String,
    /// Its share of a split, relative to the other arms; 1 unless given.
    #[serde(default = "one")]
    pub weight: f64,
    /// Who rewrites: `configured`, `remote`, `pass_through` or `policy:NAME`.
    pub rewriter: String,
}

/// An experiment: who takes part, what is compared, and when it is decided or stopped.
///
/// Reads from `[[experiments.define]]` in TOML and from JSON. What is written may still make no sense: see
/// [`crate::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its id, for good.
    pub id: String,
    /// How the arms are compared.
    pub kind: Kind,
    /// Tenants whose traffic takes part.
    pub tenants: Vec<String>,
    /// First moment, milliseconds since the Unix epoch, UTC; also read from an RFC 3339 time. Without it: at once.
    #[serde(default, deserialize_with = "moment", skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// The moment after the last one, as `start`. Without it: never.
    #[serde(default, deserialize_with = "moment", skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// Whether it may run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The kill switch: everything of it stops at once.
    #[serde(default)]
    pub killed: bool,
    /// What stays with one arm of a split.
    #[serde(default)]
    pub unit: Unit,
    /// What is compared.
    pub arms: Vec<Arm>,
    /// Name of the arm that the others are measured against.
    pub control: String,
    /// Share of the requests that a shadow experiment samples, 0 to 1.
    #[serde(default)]
    pub sample_rate: f64,
    /// The same for single tenants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sample_rates: BTreeMap<String, f64>,
    /// Share of the sampled requests that run the control arm once more, for the noise floor, 0 to 1.
    #[serde(default)]
    pub control_rate: f64,
    /// Probability of a wrong claim that is put up with, over all looks together.
    #[serde(default = "five_percent")]
    pub alpha: f64,
    /// The smallest difference of the primary metric that matters, in its own units.
    #[serde(default)]
    pub margin: f64,
    /// Pairs before anything is decided.
    #[serde(default = "hundred")]
    pub min_pairs: u64,
    /// The metric that decides.
    #[serde(default)]
    pub primary: Metric,
    /// Bounds that stop it.
    #[serde(default)]
    pub guardrails: Guardrails,
    /// Seeds assignment and sampling: another salt deals all units anew.
    #[serde(default)]
    pub salt: String,
}

/// Where an experiment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its kill switch was thrown.
    Killed,
    /// It is switched off.
    Disabled,
    /// Its start lies ahead.
    Scheduled,
    /// It runs.
    Running,
    /// Its end has passed.
    Ended,
}

impl Definition {
    /// An experiment with two arms of the same weight and every other setting as it is by default. For comparisons
    /// that nobody wrote down, such as one over a file of questions.
    #[must_use]
    pub fn between(id: &str, kind: Kind, control: &str, treatment: &str) -> Self {
        let arm = |name: &str| Arm { name: name.to_owned(), weight: 1.0, rewriter: "configured".to_owned() };
        Self {
            id: id.to_owned(),
            kind,
            tenants: Vec::new(),
            start: None,
            end: None,
            enabled: true,
            killed: false,
            unit: Unit::default(),
            arms: vec![arm(control), arm(treatment)],
            control: control.to_owned(),
            sample_rate: 0.0,
            sample_rates: BTreeMap::new(),
            control_rate: 0.0,
            alpha: five_percent(),
            margin: 0.0,
            min_pairs: hundred(),
            primary: Metric::default(),
            guardrails: Guardrails::default(),
            salt: String::new(),
        }
    }

    /// Where it stands at a moment, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> State {
        if self.killed {
            State::Killed
        } else if !self.enabled {
            State::Disabled
        } else if self.end.is_some_and(|end| end <= now_ms) {
            State::Ended
        } else if self.start.is_some_and(|start| now_ms < start) {
            State::Scheduled
        } else {
            State::Running
        }
    }

    /// Whether requests of a moment take part.
    #[must_use]
    pub fn is_active(&self, now_ms: i64) -> bool {
        self.state(now_ms) == State::Running
    }

    /// Share of a tenant's requests that are sampled, 0 to 1.
    #[must_use]
    pub fn sample_rate_of(&self, tenant: &str) -> f64 {
        self.sample_rates.get(tenant).copied().unwrap_or(self.sample_rate)
    }

    /// The first arm that is not the control.
    #[must_use]
    pub fn treatment(&self) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name != self.control)
    }
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn five_percent() -> f64 {
    0.05
}

fn hundred() -> u64 {
    100
}

/// Milliseconds, or a time in RFC 3339 as text or as TOML's own type.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(Moment)
}

struct Moment;

impl<'de> Visitor<'de> for Moment {
    type Value = Option<i64>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("milliseconds since the Unix epoch, or a time such as \"2026-03-01T08:00:00Z\"")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        i64::try_from(value).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        match value.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Some(moment.as_millisecond())),
            Err(_) => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
        }
    }

    /// TOML hands over its own times as a map of one entry.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((_, text)) => self.visit_str(&text),
            None => Err(de::Error::invalid_length(0, &self)),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = r#"
        id = "teacher"
        kind = "shadow"
        tenants = ["fivedoctors"]
        control = "local"
        sample_rate = 0.1
        sample_rates = { fivedoctors = 1.0 }
        arms = [{ name = "local", rewriter = "configured" }, { name = "teacher", rewriter = "remote", weight = 2.0 }]
    "#;

    #[test]
    fn a_short_definition_has_defaults_and_survives_json() {
        let definition: Definition = toml::from_str(SHORT).unwrap();
        assert_eq!((definition.alpha, definition.min_pairs, definition.primary), (0.05, 100, Metric::Quality));
        assert_eq!((definition.arms[0].weight, definition.arms[1].weight), (1.0, 2.0));
        assert_eq!((definition.sample_rate_of("fivedoctors"), definition.sample_rate_of("zlkt")), (1.0, 0.1));
        assert_eq!(definition.treatment().unwrap().name, "teacher");
        let json = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&json).unwrap(), definition);
    }

    #[test]
    fn times_are_read_in_every_form() {
        for written in
            ["1772352000000", "\"2026-03-01T08:00:00Z\"", "\"2026-03-01T16:00:00+08:00\"", "2026-03-01T08:00:00Z"]
        {
            let definition: Definition = toml::from_str(&format!("{SHORT}\nstart = {written}")).unwrap();
            assert_eq!(definition.start, Some(1_772_352_000_000), "{written}");
            // The way of a definition through settings that hold it as JSON.
            let table: toml::Value = toml::from_str(&format!("{SHORT}\nstart = {written}")).unwrap();
            let definition: Definition = serde_json::from_value(serde_json::to_value(table).unwrap()).unwrap();
            assert_eq!(definition.start, Some(1_772_352_000_000), "{written}");
        }
        let error = toml::from_str::<Definition>(&format!("{SHORT}\nend = \"tomorrow\"")).unwrap_err();
        assert!(error.to_string().contains("2026-03-01T08:00:00Z"), "{error}");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = toml::from_str::<Definition>(&format!("{SHORT}\nsample_share = 0.5")).unwrap_err();
        assert!(error.to_string().contains("sample_share"), "{error}");
    }

    #[test]
    fn the_state_follows_switches_and_times() {
        let mut definition: Definition = toml::from_str(SHORT).unwrap();
        (definition.start, definition.end) = (Some(10), Some(20));
        let states = [9, 10, 19, 20].map(|now| definition.state(now));
        assert_eq!(states, [State::Scheduled, State::Running, State::Running, State::Ended]);
        definition.enabled = false;
        assert_eq!(definition.state(10), State::Disabled);
        definition.killed = true;
        assert_eq!(definition.state(10), State::Killed);
    }
}
