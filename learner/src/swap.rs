//! Dialogues and passages with their names found, so that each name can be written as another one everywhere.
use std::collections::{BTreeMap, HashSet};

use rand::Rng;
use rand::seq::IndexedRandom as _;
use recast_domain::{Conversation, Dialogue, PassageRecord, Relevance, Role, Turn};

use crate::corpus::searched_text;
use crate::mentions::{Mentions, Piece, aspect_of, entity_of};
use crate::names::NameMaker;

/// Characters that a query and a rewrite must share for their words to count as kept.
const KEPT: usize = 2;

/// A text cut into names and the words between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SplitText(pub Vec<Piece>);

/// What each form of a name is written as; forms that are not in it stay as they are.
pub(crate) type Names = BTreeMap<usize, String>;

impl SplitText {
    pub fn new(text: &str, mentions: &Mentions) -> Self {
        Self(mentions.split(text))
    }

    pub fn written(&self, mentions: &Mentions, names: &Names) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Name(form) => match names.get(form) {
                    Some(name) => text.push_str(name),
                    None => text.push_str(&mentions.form(*form).text),
                },
            }
        }
        text
    }

    pub fn original(&self, mentions: &Mentions) -> String {
        self.written(mentions, &Names::new())
    }

    /// The same text with the words `from` replaced by `to`, where they stand outside names.
    pub fn reworded(&self, from: &str, to: &str) -> Self {
        let reword = |piece: &Piece| match piece {
            Piece::Text(words) => Piece::Text(words.replace(from, to)),
            Piece::Name(form) => Piece::Name(*form),
        };
        Self(self.0.iter().map(reword).collect())
    }

    /// The longest run of characters outside names that is also in `other`; of at least [`KEPT`], without white space.
    fn shared(&self, other: &Self) -> String {
        let words = |text: &Self| -> Vec<Vec<char>> {
            let runs = text.0.iter().filter_map(|piece| match piece {
                Piece::Text(words) => Some(words.split_whitespace().map(|run| run.chars().collect::<Vec<char>>())),
                Piece::Name(_) => None,
            });
            runs.flatten().collect()
        };
        let theirs = words(other);
        let mut best: Vec<char> = Vec::new();
        for run in words(self) {
            for start in 0..run.len() {
                // a longer one than the best, or none
                let mut end = start + best.len().max(KEPT - 1) + 1;
                while end <= run.len()
                    && theirs.iter().any(|text| text.windows(end - start).any(|w| *w == run[start..end]))
                {
                    best = run[start..end].to_vec();
                    end += 1;
                }
            }
        }
        best.into_iter().collect()
    }

    /// Pairs of neighbouring characters outside names, without white space.
    fn word_pairs(&self) -> impl Iterator<Item = [char; 2]> + '_ {
        let words = self.0.iter().filter_map(|piece| match piece {
            Piece::Text(words) => Some(words),
            Piece::Name(_) => None,
        });
        words.flat_map(|words| words.chars().zip(words.chars().skip(1))).filter_map(|(first, second)| {
            (!first.is_whitespace() && !second.is_whitespace()).then_some([first, second])
        })
    }

    pub fn forms(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Name(form) => Some(*form),
            Piece::Text(_) => None,
        })
    }
}

/// A dialogue with its names found.
#[derive(Debug, Clone)]
pub(crate) struct SplitDialogue {
    pub history: Vec<(Role, SplitText)>,
    pub query: SplitText,
    pub profile: SplitText,
    pub summary: SplitText,
    pub thought: SplitText,
    pub golds: Vec<SplitText>,
    /// Place in `golds` of the rewrite that keeps most of the asker's own words.
    pub faithful: usize,
    /// The longest run of words that the query and that rewrite share; empty where they share none.
    pub kept: String,
    pub relevant: Vec<Relevance>,
    /// Every form that occurs, in the order of first use; those of the conversation before those of the rewrites.
    pub forms: Vec<usize>,
    /// Forms that rewrites use.
    pub wanted: Vec<usize>,
    /// Whether every name of a rewrite can be copied from the conversation.
    pub copies: bool,
}

impl SplitDialogue {
    pub fn new(dialogue: &Dialogue, mentions: &Mentions) -> Self {
        let split = |text: &str| SplitText::new(text, mentions);
        let mut this = Self {
            history: dialogue.history.iter().map(|turn| (turn.role, split(&turn.content))).collect(),
            query: split(&dialogue.query),
            profile: split(&dialogue.user_profile),
            summary: split(&dialogue.history_summary),
            thought: split(&dialogue.thought),
            golds: dialogue.gold_rewrites.iter().map(|text| split(text)).collect(),
            faithful: 0,
            kept: String::new(),
            relevant: dialogue.relevant.clone(),
            forms: Vec::new(),
            wanted: Vec::new(),
            copies: false,
        };
        let spoken = this.context_texts().flat_map(SplitText::forms).collect::<Vec<_>>();
        this.faithful = this.most_faithful();
        this.kept = this.golds.get(this.faithful).map(|gold| this.query.shared(gold)).unwrap_or_default();
        let wanted = this.golds.iter().flat_map(SplitText::forms).collect::<Vec<_>>();
        this.copies = wanted.iter().all(|form| spoken.contains(form));
        for form in wanted.iter().copied() {
            if !this.wanted.contains(&form) {
                this.wanted.push(form);
            }
        }
        for form in spoken.into_iter().chain(wanted) {
            if !this.forms.contains(&form) {
                this.forms.push(form);
            }
        }
        this
    }

    /// The gold that keeps the most of the query's words and brings in the fewest that nobody said, by the harmonic mean
    /// of the two shares, in pairs of characters outside names; the first of equals.
    fn most_faithful(&self) -> usize {
        let said: HashSet<[char; 2]> = self.context_texts().flat_map(SplitText::word_pairs).collect();
        let asked: HashSet<[char; 2]> = self.query.word_pairs().collect();
        let share = |part: &HashSet<[char; 2]>, whole: &HashSet<[char; 2]>| match part.len() {
            0 => 0.0,
            all => part.intersection(whole).count() as f64 / all as f64,
        };
        let mut best = (0, f64::NEG_INFINITY);
        for (place, gold) in self.golds.iter().enumerate() {
            let gold: HashSet<[char; 2]> = gold.word_pairs().collect();
            let (heard, kept) = (share(&gold, &said), share(&asked, &gold));
            let score = if heard + kept > 0.0 { 2.0 * heard * kept / (heard + kept) } else { 0.0 };
            if score > best.1 {
                best = (place, score);
            }
        }
        best.0
    }

    fn context_texts(&self) -> impl Iterator<Item = &SplitText> {
        let turns = self.history.iter().map(|(_, text)| text);
        turns.chain([&self.query, &self.profile, &self.summary, &self.thought])
    }

    pub fn texts(&self) -> impl Iterator<Item = &SplitText> {
        self.context_texts().chain(&self.golds)
    }

    pub fn conversation(&self, mentions: &Mentions, names: &Names) -> Conversation {
        let write = |text: &SplitText| text.written(mentions, names);
        let turn = |(role, text): &(Role, SplitText)| Turn { role: *role, content: write(text) };
        Conversation {
            query: write(&self.query),
            history: self.history.iter().map(turn).collect(),
            user_profile: write(&self.profile),
            history_summary: write(&self.summary),
            thought: write(&self.thought),
        }
    }
}

/// A passage with its names found.
#[derive(Debug, Clone)]
pub(crate) struct SplitPassage {
    pub id: String,
    pub entity: String,
    pub aspect: String,
    pub text: SplitText,
}

impl SplitPassage {
    pub fn new(passage: &PassageRecord, mentions: &Mentions) -> Self {
        Self {
            id: passage.id.clone(),
            entity: entity_of(passage).to_owned(),
            aspect: aspect_of(passage).to_owned(),
            text: SplitText::new(&searched_text(passage), mentions),
        }
    }
}

/// A fresh name for each entity among `forms`; an alias becomes a shorter way to write its entity's fresh name.
///
/// Half of the further entities get a name that differs from the first's in one place, as products of one family do.
pub(crate) fn fresh_names(forms: &[usize], mentions: &Mentions, maker: &NameMaker, rng: &mut impl Rng) -> Names {
    let mut entities: BTreeMap<&str, String> = BTreeMap::new();
    let mut names = Names::new();
    for form in forms {
        let entity = mentions.form(*form).entity.as_str();
        if entities.contains_key(entity) {
            continue;
        }
        let others: Vec<&String> = entities.values().collect();
        let mut name = match others.choose(rng) {
            Some(other) if rng.random_bool(0.5) => maker.near(other, rng),
            _ => maker.name(rng),
        };
        while entities.values().any(|other| *other == name) {
            name = maker.name(rng);
        }
        entities.insert(entity, name);
    }
    for form in forms {
        let known = mentions.form(*form);
        let name = &entities[known.entity.as_str()];
        let mut written = if known.text == known.entity { name.clone() } else { maker.alias(name, rng) };
        while names.values().any(|other| *other == written) {
            written = maker.name(rng);
        }
        names.insert(*form, written);
    }
    names
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::corpus::TenantData;
    use crate::mentions::tests::passage;
    use crate::names::tests::maker;

    pub(crate) fn dialogue(
        id: &str,
        split: &str,
        history: &[&str],
        query: &str,
        golds: &[&str],
        relevant: &str,
    ) -> Dialogue {
        let role = |i: usize| if i.is_multiple_of(2) { "user" } else { "assistant" };
        let history: Vec<_> =
            history.iter().enumerate().map(|(i, text)| serde_json::json!({"role": role(i), "content": text})).collect();
        let value = serde_json::json!({
            "id": id, "conversation_id": id, "split": split, "history": history, "query": query, "user_profile": "",
            "history_summary": "", "thought": "", "gold_rewrites": golds,
            "relevant": [{"id": relevant, "grade": 2}], "query_type": "general",
        });
        serde_json::from_value(value).unwrap()
    }

    /// Three known products, one of the test split, one of the validation split.
    pub(crate) fn tenant() -> TenantData {
        let mut passages = Vec::new();
        let products = [
            ("胶原饮", "FD21"),
            ("胶原饮无糖版", "无糖胶原"),
            ("钙片", "钙尔"),
            ("秘密胶囊", "秘胶"),
            ("玫瑰饮", "玫饮"),
        ];
        for (number, (name, alias)) in products.into_iter().enumerate() {
            for (aspect, words) in
                [("taboo", "不适宜人群：孕妇慎用"), ("usage", "食用方法：每日一次"), ("price", "价格：99 元")]
            {
                let text = format!("{name}{words}，编号 {number}");
                passages.push(passage(&format!("{number}-{aspect}"), name, &[alias], aspect, &text));
            }
        }
        passages.push(passage("general", "", &[], "", "退货：七天内可退"));
        passages.push(passage("general-2", "", &[], "", "秘密胶囊不参加活动"));
        let mut dialogues = Vec::new();
        for (number, (name, _)) in products[..3].iter().enumerate() {
            let asks = [("taboo", "孕妇能喝吗"), ("usage", "怎么吃"), ("price", "多少钱")];
            for (aspect, words) in asks {
                let golds = [format!("{name}{words}"), format!("{words} {name}")];
                let golds: Vec<&str> = golds.iter().map(String::as_str).collect();
                let history = [format!("{name}好不好"), "挺好的".to_owned()];
                let history: Vec<&str> = history.iter().map(String::as_str).collect();
                let id = format!("train-{number}-{aspect}");
                dialogues.push(dialogue(&id, "train", &history, words, &golds, &format!("{number}-{aspect}")));
            }
        }
        let two = ["胶原饮和钙片哪个好", "都好"];
        dialogues.push(dialogue("train-two", "train", &two, "第二个孕妇能喝吗", &["钙片孕妇能喝吗"], "2-taboo"));
        dialogues.push(dialogue("test", "test", &["秘密胶囊好吗"], "孕妇能喝吗", &["秘密胶囊孕妇能喝吗"], "3-taboo"));
        dialogues.push(dialogue("val", "val", &["玫瑰饮验证吗"], "孕妇能喝吗", &["玫瑰饮孕妇能喝吗"], "4-taboo"));
        let profile = toml::from_str("id = \"shop\"\nname = \"shop\"\nsystem_prompt = \"改写查询\"").unwrap();
        TenantData::new(profile, passages, dialogues)
    }

    #[test]
    fn the_rewrite_nearest_the_askers_words_is_known() {
        let mentions = Mentions::of(&[passage("1", "胶原饮", &[], "usage", "")]);
        let golds = ["胶原饮服用方法", "胶原饮一天喝几回合适", "喝法 胶原饮"];
        let dialogue = dialogue("d", "train", &["胶原饮好吗"], "那一天喝几回", &golds, "x");
        let split = SplitDialogue::new(&dialogue, &mentions);
        assert_eq!((split.faithful, split.kept.as_str()), (1, "一天喝几回"));
        let other = split.golds[1].reworded(&split.kept, "发不发货");
        assert_eq!(other.original(&mentions), "胶原饮发不发货合适");
        assert_eq!(split.query.reworded("胶原", "甲乙").original(&mentions), "那一天喝几回", "names are not words");
    }

    #[test]
    fn words_that_are_not_shared_are_not_kept() {
        let mentions = Mentions::of(&[passage("1", "胶原饮", &[], "usage", "")]);
        let split = SplitDialogue::new(&dialogue("d", "train", &[], "胶原饮贵吗", &["胶原饮 价格"], "x"), &mentions);
        assert_eq!(split.kept, "", "a shared name is no shared word");
    }

    #[test]
    fn a_swap_is_consistent_and_complete() {
        let tenant = tenant();
        let mentions = &tenant.mentions;
        let raw = dialogue(
            "x",
            "train",
            &["胶原饮和钙片", "FD21 很好"],
            "无糖胶原呢，还是胶原饮",
            &["无糖胶原 好吗", "FD21好吗"],
            "0-taboo",
        );
        let split = SplitDialogue::new(&raw, mentions);
        assert!(split.copies && split.forms.len() == 4 && split.wanted.len() == 2);
        assert_eq!(split.conversation(mentions, &Names::new()), raw.conversation());
        let maker = maker();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let names = fresh_names(&split.forms, mentions, &maker, &mut rng);
            let conversation = split.conversation(mentions, &names);
            let gold = split.golds[0].written(mentions, &names);
            let all = format!("{conversation:?}{gold}");
            for real in ["胶原饮", "钙片", "FD21", "无糖胶原"] {
                assert!(!all.contains(real) || names.values().any(|name| name.contains(real)), "{all} keeps {real}");
            }
            let form = &names[&mentions.find("无糖胶原").unwrap()];
            assert!(gold.contains(form) && conversation.query.contains(form));
            assert!(conversation.history[1].content.starts_with(&names[&mentions.find("FD21").unwrap()]));
            let mut distinct: Vec<&String> = names.values().collect();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), 4);
        }
    }

    #[test]
    fn a_name_out_of_nowhere_is_noticed() {
        let tenant = tenant();
        let raw = dialogue("x", "train", &["好的"], "能喝吗", &["钙片能喝吗"], "2-taboo");
        assert!(!SplitDialogue::new(&raw, &tenant.mentions).copies);
    }
}
