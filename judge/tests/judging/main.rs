//! The judge from outside: a service that fails, words that attack, people who compare.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod attacks;
mod calibration;
mod http;
mod properties;
mod provider;
mod support;
