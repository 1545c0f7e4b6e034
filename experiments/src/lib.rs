//! Experiments: their definitions, who takes part, and the statistics of what was compared.
//!
//! A comparison looked at once, after a number of pairs fixed beforehand, is for [`bootstrap_paired_difference`],
//! [`sign_flip`], [`paired_t`] and [`WinTieLoss`]. One that is watched while pairs come in is for [`BettingTest`],
//! [`EmpiricalBernstein`] and their kin, which hold at every look. [`plan()`](fn@plan) says how many pairs either needs,
//! [`noise_floor`] and [`sample_ratio`] whether a difference may be believed at all.
//!
//! A [`Definition`] says what is compared for whom; [`check()`](fn@check) finds what is wrong with it, [`assign()`](fn@assign)
//! and [`sampled`] deal requests, [`team_draft`] merges two rankings, and [`report::compute`] says what came of it.
//!
//! Pure functions: no I/O, no clock, and every random draw comes from a seed in the arguments,
//! so that a report can be computed again to the last bit.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod assign;
mod bets;
mod betting_interval;
mod bootstrap;
mod check;
mod confidence;
mod decision;
mod definition;
mod e_process;
mod error;
mod guardrails;
mod interleave;
mod msprt;
mod noise;
mod normal;
mod off_policy;
mod pair_model;
mod paired;
mod plan;
pub mod report;
mod running;
mod sign_flip;
mod simulate;
mod spending;
mod srm;
mod wilson;
mod win_rate;

pub use assign::{assign, control_run, sampled};
pub use betting_interval::BettingInterval;
pub use bootstrap::{Bootstrap, Estimate, Interval, Method, bootstrap_mean, bootstrap_paired_difference};
pub use check::{Problem, check};
pub use confidence::{AsymptoticInterval, EmpiricalBernstein};
pub use decision::{Decision, Finding, Grounds, Verdict, decide};
pub use definition::{Arm, Definition, Kind, State, Unit};
pub use e_process::{BettingTest, Direction, Evidence, TwoSidedBettingTest};
pub use error::StatsError;
pub use guardrails::{AnswerFacts, GuardrailReport, Guardrails, MIN_ANSWERS};
pub use interleave::{Credit, Interleaving, MIN_COMPETITIVE, Pick, credit, team_draft};
pub use msprt::{Msprt, Spread};
pub use noise::{NoiseFloor, noise_floor};
pub use off_policy::{LoggedAction, OffPolicy, off_policy};
pub use pair_model::PairModel;
pub use paired::{PairedT, paired_t};
pub use plan::{Goal, Plan, Search, WinRatePlan, plan, plan_win_rate};
pub use sign_flip::{SignFlip, sign_flip};
pub use simulate::{Procedure, Simulation};
pub use spending::attempt_alpha;
pub use srm::{SampleRatio, sample_ratio};
pub use wilson::wilson;
pub use win_rate::{WinRate, WinTieLoss, sign_test};
