//! Keeps the learner off some cores: priorities alone do not protect those who are served.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Leaves the first `spare` of the allowed cores alone, but always keeps one; gives the number kept. Threads that are
/// started later inherit it.
pub fn spare(spare: usize) -> usize {
    let Ok(allowed) = sched_getaffinity(None) else { return 0 };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let kept = &cores[spare.min(cores.len().saturating_sub(1))..];
    let mut set = CpuSet::new();
    for core in kept {
        set.set(*core);
    }
    match sched_setaffinity(None, &set) {
        Ok(()) => kept.len(),
        Err(error) => {
            tracing::warn!(%error, "the learner cannot be kept off any core");
            cores.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_always_kept() {
        let kept = std::thread::spawn(|| {
            let all = std::thread::available_parallelism().unwrap().get();
            let kept = spare(1);
            assert_eq!(kept, (all - 1).max(1));
            spare(usize::MAX)
        });
        assert_eq!(kept.join().unwrap(), 1);
    }
}
