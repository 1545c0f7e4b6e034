//! What a judge was paid for: its replies, so that none is paid for twice, and what a tenant's day has cost. What a
//! reply means, and in which currency a cost is, is not known here.

use recast_domain::TenantId;

use crate::db::{self, Connection};
use crate::error::EpisodeError;
use crate::reader::EpisodeReader;
use crate::store::EpisodeStore;
use crate::write::{Write, Written};

/// Outdated replies that each new one clears away: more than one, so that they end.
const CLEARED: u32 = 16;

// the latest reply to a question stands
const PUT_REPLY: &str = "INSERT INTO judge_replies (tenant, key, judge, reply, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (tenant, key) DO UPDATE SET
        judge = excluded.judge, reply = excluded.reply, created_ms = excluded.created_ms";
const CLEAR: &str = "DELETE FROM judge_replies WHERE rowid IN
    (SELECT rowid FROM judge_replies WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)";
// a sum does not depend on the order of its parts
const ADD_COST: &str = "INSERT INTO judge_costs (tenant, day, cost) 
    VALUES (?1, ?2, CASE WHEN ?3 > 0.0 THEN ?3 ELSE 0.0 END)
    ON CONFLICT (tenant, day) DO UPDATE SET
        cost = CASE WHEN judge_costs.cost + ?3 > 0.0 THEN judge_costs.cost + ?3 ELSE 0.0 END";

/// A judge's reply as it came, under the hash of everything that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeReply {
    /// Whose question it was.
    pub tenant: TenantId,
    /// The hash.
    pub key: [u8; 32],
    /// The judge's id.
    pub judge: String,
    /// The reply.
    pub reply: String,
    /// When it came, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

/// What judging has cost a tenant on one day, or by how much that has changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cost {
    tenant: TenantId,
    day: u64,
    cost: f64,
}

/// A reply to be kept, and since when replies are worth something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptReply {
    reply: JudgeReply,
    oldest_ms: i64,
}

/// # Errors
/// When the database fails.
pub(crate) fn put_reply(connection: &Connection, kept: &KeptReply) -> db::Result<Written> {
    let one = &kept.reply;
    connection.execute(CLEAR, &[kept.oldest_ms.into(), CLEARED.into()])?;
    let values = [
        one.tenant.as_str().into(),
        (&one.key).into(),
        (&one.judge).into(),
        (&one.reply).into(),
        one.created_ms.into(),
    ];
    connection.execute(PUT_REPLY, &values)?;
    Ok(Written::Stored)
}

/// # Errors
/// When the database fails.
pub(crate) fn add_cost(connection: &Connection, cost: &Cost) -> db::Result<Written> {
    let day = i64::try_from(cost.day).unwrap_or(i64::MAX);
    connection.execute(ADD_COST, &[cost.tenant.as_str().into(), day.into(), cost.cost.into()])?;
    Ok(Written::Stored)
}

impl EpisodeStore {
    /// Keeps a reply; an older one under the same key is replaced. Replies from before `oldest_ms` are cleared away, a
    /// few with each that is kept.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn put_judge_reply(&self, reply: JudgeReply, oldest_ms: i64) -> Result<(), EpisodeError> {
        self.write(Write::JudgeReply(Box::new(KeptReply { reply, oldest_ms }))).await.map(drop)
    }

    /// Adds to what judging has cost a tenant on a day (days since 1970, UTC); a negative cost gives back, down to zero.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn add_judge_cost(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), EpisodeError> {
        if !cost.is_finite() {
            return Err(EpisodeError::Invalid(format!("a cost of {cost} is no amount")));
        }
        self.write(Write::JudgeCost(Cost { tenant: tenant.clone(), day, cost })).await.map(drop)
    }
}

impl EpisodeReader {
    /// The reply that is kept under a key of this tenant.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn judge_reply(&self, tenant: &TenantId, key: &[u8; 32]) -> Result<Option<JudgeReply>, EpisodeError> {
        self.read(|connection| {
            let sql = "SELECT judge, reply, created_ms FROM judge_replies WHERE tenant = ?1 AND key = ?2";
            connection.first(sql, &[tenant.as_str().into(), key.into()], |row| {
                let tenant = tenant.clone();
                Ok(JudgeReply { tenant, key: *key, judge: row.get(0)?, reply: row.get(1)?, created_ms: row.get(2)? })
            })
        })
    }

    /// What judging has cost a tenant on a day (days since 1970, UTC); 0 where nothing is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn judge_cost(&self, tenant: &TenantId, day: u64) -> Result<f64, EpisodeError> {
        let day = i64::try_from(day).unwrap_or(i64::MAX);
        self.read(|connection| {
            let sql = "SELECT cost FROM judge_costs WHERE tenant = ?1 AND day = ?2";
            let found = connection.first(sql, &[tenant.as_str().into(), day.into()], |row| row.get(0));
            Ok(found?.unwrap_or(0.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{Site, on_both};

    on_both!(
        async: a_reply_is_there_after_a_restart_and_only_for_its_tenant, replies_that_are_worth_nothing_any_more_go, costs_add_up_by_tenant_and_day_over_restarts
    );

    fn reply(tenant: &str, key: u8, text: &str, created_ms: i64) -> JudgeReply {
        JudgeReply {
            tenant: tenant.parse().unwrap(),
            key: [key; 32],
            judge: "openai:m".to_owned(),
            reply: text.to_owned(),
            created_ms,
        }
    }

    async fn a_reply_is_there_after_a_restart_and_only_for_its_tenant(site: &Site) {
        let store = site.store();
        let (first, second) = (reply("a", 1, "{}", 5), reply("a", 1, "{\"二\":2}", 6));
        store.put_judge_reply(first, 0).await.unwrap();
        store.put_judge_reply(second.clone(), 0).await.unwrap();
        store.close().await;
        let reader = site.store().reader();
        assert_eq!(reader.judge_reply(&second.tenant, &[1; 32]).unwrap(), Some(second.clone()), "the latest stands");
        assert_eq!(reader.judge_reply(&second.tenant, &[2; 32]).unwrap(), None);
        assert_eq!(reader.judge_reply(&"b".parse().unwrap(), &[1; 32]).unwrap(), None);
    }

    async fn replies_that_are_worth_nothing_any_more_go(site: &Site) {
        let store = site.store();
        for key in 0..40 {
            store.put_judge_reply(reply("a", key, "{}", i64::from(key)), 0).await.unwrap();
        }
        let left =
            || (0..43).filter(|key| store.reader().judge_reply(&"a".parse().unwrap(), &[*key; 32]).unwrap().is_some());
        store.put_judge_reply(reply("a", 40, "{}", 40), 30).await.unwrap();
        assert_eq!(left().count(), 25, "a few at a time");
        store.put_judge_reply(reply("a", 41, "{}", 41), 30).await.unwrap();
        store.put_judge_reply(reply("a", 42, "{}", 42), 30).await.unwrap();
        assert_eq!(left().collect::<Vec<_>>(), (30..43).collect::<Vec<_>>());
    }

    async fn costs_add_up_by_tenant_and_day_over_restarts(site: &Site) {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let store = site.store();
        for cost in [1.0, 0.5, -0.25] {
            store.add_judge_cost(&a, 20_000, cost).await.unwrap();
        }
        store.add_judge_cost(&b, 20_000, -3.0).await.unwrap();
        assert!(store.add_judge_cost(&a, 20_000, f64::NAN).await.is_err());
        store.close().await;
        let store = site.store();
        store.add_judge_cost(&a, 20_000, 1.0).await.unwrap();
        store.add_judge_cost(&a, 20_001, 9.0).await.unwrap();
        let cost = |tenant, day| store.reader().judge_cost(tenant, day).unwrap();
        assert_eq!((cost(&a, 20_000), cost(&a, 20_001), cost(&a, 20_002), cost(&b, 20_000)), (2.25, 9.0, 0.0, 0.0));
    }
}
