//! The rewriter from outside: its engine beside the network it must agree with, its client against broken servers, its
//! ladder with rungs taken away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod engine;
mod ladder;
mod local;
mod models;
mod remote;

use std::sync::Arc;

use recast_config::TenantProfile;
use recast_domain::{Conversation, Role, Turn};
use recast_rewriter::RewriteRequest;

/// A tenant's question with one earlier turn.
fn request(tenant: &str, query: &str) -> RewriteRequest {
    let tenant = TenantProfile {
        id: tenant.parse().unwrap(),
        name: tenant.to_owned(),
        domain: String::new(),
        system_prompt: "改写".to_owned(),
        synonyms: Default::default(),
        term_expansion: Default::default(),
        protected_terms: Vec::new(),
        redact: false,
        retention_days: None,
    };
    let history = vec![Turn { role: Role::User, content: "胶原蛋白怎么吃".to_owned() }];
    let conversation = Conversation { query: query.to_owned(), history, ..Conversation::default() };
    RewriteRequest { tenant: Arc::new(tenant), conversation, seed: 7 }
}
