//! A judge that needs no model: rules, in process, the same answer every time.
//!
//! It sees surfaces, not meanings. What it looks at:
//! - **name**: whether a question that leaves its object out gets it back from the conversation, as a run of at least
//!   three characters (or a Latin word) that the conversation has and the question has not; and, where the question
//!   says "the first one" or "the second", whether that run stands where it says;
//! - **intent**: the share of the question's units (Latin words, pairs of Han characters; polite and pointing words
//!   left out) that the rewrite keeps; in "what about X instead", also of the question before;
//! - **words**: units of the rewrite that neither the question, the conversation nor the domain's terms have;
//! - **length**: repeated units, and more text than question and name together need;
//! - **rank**: where a search finds the labelled passage, if the caller knows.
//!
//! So it tells a copy, a lost or wrong name, a lost question and heaped words from a good rewrite, and it takes a good
//! paraphrase for a lost question. It is for demonstrations, tests and sanity checks; its scores are never compared
//! with a model's, whose id differs.
use std::collections::BTreeSet;

use async_trait::async_trait;
use recast_domain::{Conversation, Role};

use crate::group::{Distinct, Opinion};
use crate::units::{carried_name, stripped, units};
use crate::{
    Candidate, Flips, GroupVerdict, Judge, JudgeItem, LabelRank, RewriteRules, RubricVerdict, Scores, Verdict,
    VerdictFault, invalid_rewrite,
};

/// Raised with every change that can change a score.
const ID: &str = "heuristic-1";

/// The offline judge.
#[derive(Debug, Clone, Default)]
pub struct HeuristicJudge {
    rules: RewriteRules,
}

/// Words that point at something that was said before.
const POINTS: [&str; 12] =
    ["这个", "那个", "这款", "那款", "这门", "那门", "它", "前者", "后者", "第一", "第二", "前面"];
const FIRST: [&str; 11] =
    ["第一", "前者", "前面那", "前一", "最开始", "我问的", "我那", "老的那", "先说", "the first", "former"];
const SECOND: [&str; 7] = ["第二", "后者", "后面那", "后一", "末了", "the second", "latter"];
const SWAPS: [&str; 4] = ["换", "的话呢", "what about", "instead"];

/// What the rules see of a question.
struct Facts {
    query: BTreeSet<String>,
    /// Units whose loss is the loss of the intent.
    wanted: BTreeSet<String>,
    known: BTreeSet<String>,
    context: String,
    first_turn: String,
    points_first: bool,
    points_second: bool,
    /// Whether the question leaves something to the conversation.
    leaves_out: bool,
}

impl Facts {
    fn of(item: &JudgeItem) -> Self {
        let Conversation { query, history, user_profile, history_summary, thought } = &item.conversation;
        let lower = query.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let turns: Vec<&str> = history.iter().map(|turn| turn.content.as_str()).collect();
        let context = [turns.join(" ").as_str(), history_summary, user_profile, thought].join(" ");
        let query_units = units(&stripped(query));
        // "and X?" asks of X what the turn before asked
        let swaps = says(&SWAPS) || (lower.starts_with('那') && lower.ends_with('呢'));
        let before = history.iter().rev().find(|turn| turn.role == Role::User).filter(|_| swaps);
        let mut wanted = query_units.clone();
        wanted.extend(before.map(|turn| units(&stripped(&turn.content))).unwrap_or_default());
        let mut known = units(&context);
        known.extend(units(query));
        known.extend(item.terms.iter().flat_map(|term| units(term)));
        let names_nothing = carried_name(query, &context, "").is_none();
        Self {
            query: query_units,
            wanted,
            known,
            first_turn: turns.first().map(|turn| (*turn).to_owned()).unwrap_or_default(),
            points_first: says(&FIRST),
            points_second: says(&SECOND),
            leaves_out: !context.trim().is_empty() && (says(&POINTS) || swaps || names_nothing),
            context,
        }
    }

    /// Whether a name from the conversation is the one that the question points at.
    fn is_meant(&self, name: &str) -> bool {
        let lower = self.context.to_lowercase();
        let (Some(at), false) = (lower.find(name), self.points_first == self.points_second) else { return true };
        let turn = self.first_turn.to_lowercase();
        // "A and B" in one turn: before the joint; else anywhere in the first turn
        let joint = ["和", "跟", "、", "与", " vs ", " and "].iter().filter_map(|joint| turn.find(joint)).min();
        let border = joint.unwrap_or(turn.len());
        (at < border) == self.points_first
    }
}

fn share(part: &BTreeSet<String>, of: &BTreeSet<String>) -> f64 {
    if of.is_empty() { 1.0 } else { of.intersection(part).count() as f64 / of.len() as f64 }
}

/// 1 to 5: one more than the number of steps that are reached.
fn level(value: f64, steps: [f64; 4]) -> u8 {
    1 + steps.iter().map(|step| u8::from(value >= *step)).sum::<u8>()
}

impl HeuristicJudge {
    fn scores(item: &JudgeItem, candidate: &Candidate) -> (Scores, String) {
        let facts = Facts::of(item);
        let (query, rewrite) = (&item.conversation.query, &candidate.text);
        let written = units(rewrite);
        let name = carried_name(rewrite, &facts.context, query);
        let wrong_name = name.as_deref().is_some_and(|name| !facts.is_meant(name));
        let settled = !facts.leaves_out || (name.is_some() && !wrong_name);
        let kept = share(&written, &facts.query);
        let new = 1.0 - share(&facts.known, &written);
        let (length, fair) = (
            rewrite.chars().count(),
            query.chars().count() + name.as_deref().map_or(0, |name| name.chars().count()) + 8,
        );
        let total = crate::units::count(rewrite).max(1);
        let heaped = length > fair * 3 / 2 || (total - written.len()) * 4 > total;
        let terms = item.terms.iter().any(|term| rewrite.contains(term.as_str()));

        let intent = match (wrong_name, level(share(&written, &facts.wanted), [0.01, 0.15, 0.3, 0.5])) {
            (true, _) => 1,
            (false, level) => level,
        };
        let quality = 4_i8 + i8::from(settled && facts.leaves_out)
            - i8::from(rewrite == query)
            - 2 * i8::from(heaped)
            - i8::from(!settled)
            - i8::from(new > 0.7);
        let fit = match (wrong_name, settled) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 4 + u8::from(terms),
        };
        let found = match candidate.rank {
            LabelRank::At(1) => 5,
            LabelRank::At(2..=3) => 4,
            LabelRank::At(4..=10) => 3,
            LabelRank::At(_) => 2,
            LabelRank::NotFound => 1,
            LabelRank::Unknown if wrong_name => 1,
            LabelRank::Unknown if !settled => 2,
            LabelRank::Unknown => 3 + u8::from(kept >= 0.3) + u8::from(kept >= 0.3 && !heaped),
        };
        let scores = [quality.clamp(1, 5).unsigned_abs(), fit, intent, found];
        let reason = format!(
            "name {}{}; kept {kept:.2}; new {new:.2}{}",
            name.as_deref().unwrap_or("-"),
            if wrong_name { " (not the one meant)" } else { "" },
            if heaped { "; heaped" } else { "" },
        );
        (Scores::try_from(scores).unwrap_or(Scores::LOWEST), reason)
    }
}

#[async_trait]
impl Judge for HeuristicJudge {
    fn id(&self) -> &str {
        ID
    }

    async fn judge_rubric(&self, item: &JudgeItem, rewrite: &Candidate) -> RubricVerdict {
        if let Some(reason) = invalid_rewrite(&item.conversation.query, &rewrite.text, &self.rules) {
            return Verdict::Missing { fault: VerdictFault::NoRewrite(reason) }.into();
        }
        let (scores, reason) = Self::scores(item, rewrite);
        Verdict::Scored { scores, reason }.into()
    }

    async fn judge_group(&self, item: &JudgeItem, rewrites: &[Candidate], baseline: &Candidate) -> GroupVerdict {
        let distinct = Distinct::of(&item.conversation.query, rewrites, baseline, &self.rules);
        let opinion = |candidate: &&Candidate| -> Opinion {
            let (scores, reason) = Self::scores(item, candidate);
            Ok((vec![scores], reason))
        };
        let opinions: Vec<Opinion> = distinct.candidates.iter().map(opinion).collect();
        distinct.verdict(ID, &opinions, Flips::default(), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use recast_domain::Turn;

    use super::*;

    fn item(turns: &[&str], query: &str) -> JudgeItem {
        let role = |index: usize| if index.is_multiple_of(2) { Role::User } else { Role::Assistant };
        let turn = |(index, text): (usize, &&str)| Turn { role: role(index), content: (*text).to_owned() };
        let history = turns.iter().enumerate().map(turn).collect();
        JudgeItem {
            tenant: "shop".parse().unwrap(),
            domain: String::new(),
            terms: vec!["保质期".to_owned()],
            conversation: Conversation { query: query.to_owned(), history, ..Conversation::default() },
            passages: Vec::new(),
            repeat: 0,
        }
    }

    /// The overall scores, which must fall from one rewrite to the next.
    fn falls(item: &JudgeItem, rewrites: &[&str]) {
        let score = |text: &&str| HeuristicJudge::scores(item, &Candidate::from(*text)).0.overall();
        let scores: Vec<f64> = rewrites.iter().map(score).collect();
        assert!(scores.windows(2).all(|pair| pair[0] > pair[1]), "{rewrites:?} {scores:?}");
    }

    #[test]
    fn a_lost_name_a_wrong_name_and_a_lost_question_cost() {
        let one = item(&["胶原蛋白肽饮怎么样", "卖得很好"], "孕妇能喝吗");
        falls(&one, &["胶原蛋白肽饮 孕妇能喝吗", "孕妇能喝吗"]);
        falls(&one, &["胶原蛋白肽饮 孕妇能喝吗", "胶原蛋白肽饮 多少钱"]);
        let heaped = "胶原蛋白肽饮 孕妇能喝吗 孕妇能喝吗 孕期 哺乳期 妊娠 禁忌 功效 用量 价格 优惠 保存 保质期";
        falls(&one, &["胶原蛋白肽饮 孕妇能喝吗", heaped]);
        let two = item(&["蓝莓护眼糖和叶黄素凝胶糖果哪个好", "都有货"], "后面那个活动还剩几天");
        falls(&two, &["叶黄素凝胶糖果 活动还剩几天", "活动还剩几天", "蓝莓护眼糖 活动还剩几天"]);
        let swap = item(&["深海鱼油高纯型有啥不好的反应", "少数人会嗜睡"], "那深海鱼油标准型呢");
        falls(&swap, &["深海鱼油标准型 有啥不好的反应", "深海鱼油高纯型 多少钱"]);
    }

    #[test]
    fn a_whole_question_may_stay_as_it_is() {
        let whole = item(&[], "奇亚籽粉能放几个月");
        let copy = HeuristicJudge::scores(&whole, &Candidate::from("奇亚籽粉能放几个月")).0;
        assert!(copy.overall() >= 4.0, "{copy:?}");
    }

    #[tokio::test]
    async fn a_known_rank_counts_and_the_judge_repeats_itself() {
        let whole = item(&[], "奇亚籽粉能放几个月");
        let ranked = |rank| [Candidate { text: "奇亚籽粉 保质期".to_owned(), rank }];
        let judge = HeuristicJudge::default();
        let first = judge.judge_group(&whole, &ranked(LabelRank::At(1)), &"：".into()).await;
        let last = judge.judge_group(&whole, &ranked(LabelRank::NotFound), &"：".into()).await;
        assert_eq!(first.rewrites[0].overall().unwrap() - last.rewrites[0].overall().unwrap(), 1.0);
        assert_eq!(first, judge.judge_group(&whole, &ranked(LabelRank::At(1)), &"：".into()).await);
        assert!(first.baseline.overall().is_none() && first.judge.starts_with("heuristic-"));
    }
}
