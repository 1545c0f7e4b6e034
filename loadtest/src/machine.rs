//! What the machine was doing while a run was measured.

use std::fs;

use serde::Serialize;

/// Facts that a reader needs to judge a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// `/proc/loadavg` before the run: 1, 5 and 15 minutes.
    pub load_average: String,
    /// Kernel release.
    pub kernel: String,
    /// Share of all processor time that was idle during the run, 0 to 1; `None` where the system does not say.
    pub idle_share: Option<f64>,
    /// Version of this generator.
    pub generator: &'static str,
}

/// Processor time counted by the system since it started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemTicks {
    idle: u64,
    all: u64,
}

/// Reads the first line of `/proc/stat`.
#[must_use]
pub fn parse_system_ticks(text: &str) -> Option<SystemTicks> {
    let fields: Vec<u64> = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().flat_map(str::parse).collect();
    // proc(5): user nice system idle iowait irq softirq steal; guest time is already inside user.
    let all = fields.iter().take(8).sum();
    Some(SystemTicks { idle: fields.get(3)? + fields.get(4)?, all })
}

/// Idle share between two readings.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "ticks of a run stay far below 2^53")]
pub fn idle_share(before: SystemTicks, after: SystemTicks) -> Option<f64> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    Some(after.idle.saturating_sub(before.idle) as f64 / all as f64)
}

fn system_ticks() -> Option<SystemTicks> {
    parse_system_ticks(&fs::read_to_string("/proc/stat").ok()?)
}

/// Watches the machine from its creation to [`Watch::finish`].
#[derive(Debug)]
pub struct Watch {
    before: Option<SystemTicks>,
    load_average: String,
}

impl Watch {
    /// Takes the first reading.
    #[must_use]
    pub fn start() -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_average = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self { before: system_ticks(), load_average }
    }

    /// Takes the second reading.
    #[must_use]
    pub fn finish(self) -> Machine {
        let idle = self.before.zip(system_ticks()).and_then(|(before, after)| idle_share(before, after));
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: self.load_average,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            idle_share: idle,
            generator: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_waiting_for_disks() {
        let before = parse_system_ticks("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 1").unwrap();
        let after = parse_system_ticks("cpu  180 0 70 880 70 0 0 0 9 0").unwrap();
        assert_eq!(idle_share(before, after), Some(0.5));
        assert_eq!(idle_share(after, after), None);
        assert_eq!(parse_system_ticks("intr 1 2 3"), None);
    }
}
