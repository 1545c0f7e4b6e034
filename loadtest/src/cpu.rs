//! CPU time of the server: the one figure that a busy machine hardly moves.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;

/// Length of the tick in which Linux reports CPU time to user space, on every architecture in use.
const TICK_US: u64 = 10_000;

/// One line of `/proc/PID/stat`, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Parent process.
    pub parent: u32,
    /// User and system time, that of ended children included, in ticks.
    pub ticks: u64,
}

/// Reads a line of `/proc/PID/stat`. The command name may hold blanks and brackets, so fields count from the last `)`.
#[must_use]
pub fn parse_stat(line: &str) -> Option<ProcessStat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc(5): state is field 3 and comes first here; ppid is 4; utime, stime, cutime, cstime are 14 to 17.
    let parent = fields.get(1)?.parse().ok()?;
    let mut ticks = 0;
    for field in fields.get(11..15)? {
        ticks += field.parse::<u64>().ok()?;
    }
    Some(ProcessStat { parent, ticks })
}

/// Sums the ticks of `root` and of all its descendants.
#[must_use]
pub fn tree_ticks(root: u32, table: &BTreeMap<u32, ProcessStat>) -> Option<u64> {
    let mut total = table.get(&root)?.ticks;
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in table.iter().filter(|(pid, stat)| stat.parent == parent && **pid != root) {
            total += stat.ticks;
            parents.push(*pid);
        }
    }
    Some(total)
}

/// CPU time that the process and its descendants have used so far, in microseconds, to 10,000 microseconds.
///
/// # Errors
/// There is no such process, or `/proc` cannot be read.
pub fn tree_cpu_us(pid: u32) -> Result<u64, Error> {
    let proc = Path::new("/proc");
    let entries = std::fs::read_dir(proc).map_err(|source| Error::file(proc, source))?;
    let table = entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A process may end between the listing and the read.
            let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&line)?))
        })
        .collect();
    tree_ticks(pid, &table).map(|ticks| ticks * TICK_US).ok_or_else(|| Error::Process {
        pid,
        problem: "no such process on this machine: give the server's own id with --pid, or leave --pid out".to_owned(),
    })
}

/// CPU microseconds a request between two readings; `None` where nothing was answered between them.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "microseconds of a run stay far below 2^53")]
pub fn per_request_us(before_us: u64, after_us: u64, answered: u64) -> Option<f64> {
    (answered > 0).then(|| after_us.saturating_sub(before_us) as f64 / answered as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 0 0 0 100 20 3 4 20 0 9 0 5 1 1";
        assert_eq!(parse_stat(line), Some(ProcessStat { parent: 7, ticks: 127 }));
        assert_eq!(parse_stat("42 (x) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn the_tree_is_summed_and_neighbours_are_not() {
        let stat = |parent, ticks| ProcessStat { parent, ticks };
        let table = BTreeMap::from([
            (1, stat(0, 1_000)),
            (10, stat(1, 5)),
            (11, stat(10, 6)),
            (12, stat(11, 7)),
            (13, stat(1, 900)),
        ]);
        assert_eq!(tree_ticks(10, &table), Some(18));
        assert_eq!(tree_ticks(99, &table), None);
    }

    #[test]
    fn own_time_is_readable() {
        assert!(tree_cpu_us(std::process::id()).is_ok());
        assert_eq!(per_request_us(10_000, 30_000, 100), Some(200.0));
        assert_eq!(per_request_us(0, 10, 0), None);
    }
}
