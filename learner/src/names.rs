//! Fresh names for products, courses and funds.
//!
//! A small model learns to copy only when it never sees the same name twice: a hundred fixed names teach a hundred
//! names. So names are drawn from all Han characters of the vocabulary, and some from characters outside of it, which
//! are runs of byte tokens.
use rand::Rng;
use rand::seq::IndexedRandom as _;
use recast_model::{ModelTokenizer, is_han};

/// Which characters a name may be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Characters {
    /// Those of the vocabulary, and one name in seven with rare ones: for training.
    Mixed,
    /// Those of the vocabulary.
    Known,
    /// Rare ones that training never draws.
    Unseen,
}

/// Makes names.
#[derive(Debug, Clone)]
pub struct NameMaker {
    known: Vec<char>,
    rare: Vec<char>,
    unseen: Vec<char>,
    /// Ends of real names: 饮, 胶囊, 系统班, Growth.
    tails: Vec<String>,
    /// Parts of real names.
    parts: Vec<String>,
    /// Latin words of real names.
    words: Vec<String>,
    characters: Characters,
}

const YEARS: [&str; 8] = ["2023", "2024", "2025", "2026", "2023-24", "2024-25", "2025-26", "2026-27"];
const ONSETS: [&str; 18] = ["b", "br", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"];
const NUCLEI: [&str; 9] = ["a", "e", "i", "o", "u", "ea", "ia", "er", "an"];

impl NameMaker {
    /// A maker for training that knows the characters of a tokenizer and the ends and parts of real train names.
    #[must_use]
    pub fn new<'a>(tokenizer: &ModelTokenizer, train_names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = tokenizer.han_entries();
        let listed: std::collections::HashSet<char> = known.iter().copied().collect();
        let outside: Vec<char> = ('\u{4E00}'..='\u{9FA5}').filter(|c| !listed.contains(c)).collect();
        // every fifth rare character is kept for validation
        let (unseen, rare): (Vec<_>, Vec<_>) =
            outside.iter().copied().enumerate().partition(|(i, _)| i.is_multiple_of(5));
        let plain = |list: Vec<(usize, char)>| list.into_iter().map(|(_, c)| c).collect();
        let mut maker = Self {
            known,
            rare: plain(rare),
            unseen: plain(unseen),
            tails: Vec::new(),
            parts: Vec::new(),
            words: Vec::new(),
            characters: Characters::Mixed,
        };
        for name in train_names {
            maker.learn(name);
        }
        for list in [&mut maker.tails, &mut maker.parts, &mut maker.words] {
            list.sort();
            list.dedup();
        }
        maker
    }

    /// The same maker on characters of the vocabulary only: for validation on names that training never saw.
    #[must_use]
    pub fn of_known_characters(&self) -> Self {
        Self { characters: Characters::Known, ..self.clone() }
    }

    /// The same maker on characters that training never draws.
    #[must_use]
    pub fn of_unseen_characters(&self) -> Self {
        Self { characters: Characters::Unseen, ..self.clone() }
    }

    fn learn(&mut self, name: &str) {
        for word in name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 1) {
            self.words.push(word.to_owned());
        }
        let runs: Vec<Vec<char>> =
            name.split(|c| !is_han(c)).filter(|run| !run.is_empty()).map(|run| run.chars().collect()).collect();
        for run in &runs {
            self.parts.extend(run.chunks(2).filter(|part| part.len() == 2).map(|part| part.iter().collect::<String>()));
        }
        match (runs.last(), name.split_whitespace().next_back()) {
            (Some(run), _) if name.chars().next_back().is_some_and(is_han) => {
                for length in [1, 2, 3] {
                    if run.len() > length {
                        self.tails.push(run[run.len() - length..].iter().collect());
                    }
                }
            }
            (_, Some(word)) if word.len() < name.len() => self.tails.push(word.to_owned()),
            _ => {}
        }
    }

    fn han(&self, count: usize, rng: &mut impl Rng) -> String {
        let rare_name = self.characters == Characters::Mixed && rng.random_bool(1.0 / 7.0);
        let rare_share = match self.characters {
            Characters::Unseen => 1.0,
            Characters::Known => 0.0,
            Characters::Mixed if rare_name => *[0.3, 1.0].choose(rng).unwrap_or(&1.0),
            Characters::Mixed => 0.0,
        };
        let rare = if self.characters == Characters::Unseen { &self.unseen } else { &self.rare };
        let draw = |_| {
            let list = if rng.random_bool(rare_share) { rare } else { &self.known };
            list.choose(rng).copied().unwrap_or('名')
        };
        (0..count).map(draw).collect()
    }

    fn tail(&self, rng: &mut impl Rng) -> String {
        self.tails.choose(rng).cloned().unwrap_or_else(|| self.han(1, rng))
    }

    fn latin(&self, rng: &mut impl Rng) -> String {
        match rng.random_range(0..5) {
            0 | 1 if !self.words.is_empty() => self.words.choose(rng).cloned().unwrap_or_default(),
            2 => (0..rng.random_range(2..5)).map(|_| char::from(rng.random_range(b'A'..=b'Z'))).collect(),
            _ => {
                let syllable = |rng: &mut _| format!("{}{}", pick(&ONSETS, rng), pick(&NUCLEI, rng));
                let word: String = (0..rng.random_range(2..4)).map(|_| syllable(rng)).collect();
                let mut letters = word.chars();
                letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
            }
        }
    }

    fn code(rng: &mut impl Rng) -> String {
        let letters: String = (0..rng.random_range(1..4)).map(|_| char::from(rng.random_range(b'A'..=b'Z'))).collect();
        let digits: String = (0..rng.random_range(2..5)).map(|_| char::from(rng.random_range(b'0'..=b'9'))).collect();
        format!("{letters}{}{digits}", pick(&["", "", "-"], rng))
    }

    /// A name that did not exist before.
    #[must_use]
    pub fn name(&self, rng: &mut impl Rng) -> String {
        let gap = pick(&["", "", "", " "], rng);
        match rng.random_range(0..100) {
            0..36 => self.han(rng.random_range(2..=8), rng),
            36..56 => format!("{}{gap}{}", self.han(rng.random_range(2..=5), rng), self.tail(rng)),
            56..64 => format!("{}{gap}{}{}", pick(&YEARS, rng), self.han(rng.random_range(2..=4), rng), self.tail(rng)),
            64..76 => {
                let words: Vec<String> = (0..rng.random_range(1..4)).map(|_| self.latin(rng)).collect();
                let end = if rng.random_bool(0.3) { format!(" {}", self.tail(rng)) } else { String::new() };
                format!("{}{end}", words.join(" "))
            }
            76..81 => Self::code(rng),
            81..86 => format!("{} {}", self.latin(rng), self.han(rng.random_range(2..=4), rng)),
            // a family: parts of real names about new ones
            _ => {
                let part = |rng: &mut _| self.parts.choose(rng).cloned().unwrap_or_default();
                let pieces = [part(rng), self.han(rng.random_range(1..=3), rng), part(rng)];
                let end = if rng.random_bool(0.5) { format!("{gap}{}", self.tail(rng)) } else { String::new() };
                format!("{}{end}", pieces.concat())
            }
        }
    }

    /// A name that differs from another in one place: a character, a word, a year, an end.
    #[must_use]
    pub fn near(&self, name: &str, rng: &mut impl Rng) -> String {
        let mut letters: Vec<char> = name.chars().collect();
        match rng.random_range(0..10) {
            0 | 1 => format!("{name}{}{}", pick(&["", " "], rng), self.tail(rng)),
            2 => format!("{}{name}", self.han(rng.random_range(1..=2), rng)),
            3 if letters.len() > 4 => {
                let kept: String = letters[..letters.len() - rng.random_range(1..=2)].iter().collect();
                format!("{}{}", kept.trim_end(), self.tail(rng))
            }
            4 if letters.len() > 4 && letters.last().copied().is_some_and(is_han) => {
                letters.truncate(letters.len() - 1);
                letters.into_iter().collect()
            }
            _ => {
                for _ in 0..8 {
                    let place = rng.random_range(0..letters.len().max(1));
                    let Some(old) = letters.get(place).copied() else { break };
                    let new = if old.is_ascii_digit() {
                        char::from(rng.random_range(b'0'..=b'9'))
                    } else if old.is_ascii_uppercase() {
                        char::from(rng.random_range(b'A'..=b'Z'))
                    } else if old.is_ascii_lowercase() {
                        char::from(rng.random_range(b'a'..=b'z'))
                    } else if is_han(old) {
                        self.han(1, rng).chars().next().unwrap_or(old)
                    } else {
                        old
                    };
                    if new != old {
                        letters[place] = new;
                        break;
                    }
                }
                letters.into_iter().collect()
            }
        }
    }

    /// A shorter way to write a name.
    #[must_use]
    pub fn alias(&self, name: &str, rng: &mut impl Rng) -> String {
        let words: Vec<&str> = name.split(' ').filter(|word| word.chars().count() > 1).collect();
        if words.len() > 1 {
            return pick(&words, rng).to_owned();
        }
        let letters: Vec<char> = name.chars().collect();
        if letters.len() < 4 {
            return format!("{}{}", letters.iter().collect::<String>(), self.tail(rng));
        }
        let length = rng.random_range(2..letters.len());
        let start = if rng.random_bool(0.6) { 0 } else { rng.random_range(0..=letters.len() - length) };
        let mut short: String = letters[start..start + length].iter().collect();
        if rng.random_bool(0.2) {
            // the first letters and the end: 胶原蛋白肽饮 -> 胶饮
            short = format!("{}{}", letters[0], letters[letters.len() - 1]);
        }
        short.trim().to_owned()
    }

    /// Random text with no meaning, to practise copying.
    #[must_use]
    pub fn noise(&self, rng: &mut impl Rng) -> String {
        match rng.random_range(0..6) {
            0 => self.latin(rng),
            1 => Self::code(rng),
            _ => self.han(rng.random_range(3..=9), rng),
        }
    }
}

fn pick<'a>(list: &[&'a str], rng: &mut impl Rng) -> &'a str {
    list.choose(rng).copied().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use recast_model::{VocabularySettings, train_tokenizer};

    use super::*;

    pub(crate) fn tokenizer() -> ModelTokenizer {
        let texts = vec!["胶原饮无糖版和钙片孕妇能喝吗怎么吃多少钱，第二个好不好挺都 FD21 99".to_owned()];
        let settings = VocabularySettings { entries: 700, words: 30 };
        train_tokenizer(&texts, include_str!("../assets/han.txt"), settings).unwrap()
    }

    pub(crate) fn maker() -> NameMaker {
        NameMaker::new(&tokenizer(), ["胶原饮", "胶原饮无糖版", "钙片", "AusFund High Growth", "2025国考系统班"])
    }

    #[test]
    fn names_are_many_and_never_empty() {
        let maker = maker();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let names: Vec<String> = (0..3000).map(|_| maker.name(&mut rng)).collect();
        assert!(names.iter().all(|name| name.chars().count() > 1 && name.trim() == name), "a name is blank");
        assert!(names.iter().collect::<HashSet<_>>().len() > 2900);
        let known: HashSet<char> = maker.known.iter().copied().collect();
        let rare = names.iter().filter(|name| name.chars().any(|c| is_han(c) && !known.contains(&c))).count();
        assert!((200..700).contains(&rare), "{rare} of 3000 names have rare characters");
        assert!(names.iter().any(|name| name.ends_with("Growth")) && names.iter().any(|name| name.starts_with("2024")));
    }

    #[test]
    fn near_names_and_aliases_stay_close() {
        let maker = maker();
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut same = 0;
        for _ in 0..1000 {
            let near = maker.near("胶原蛋白肽饮 焕颜版", &mut rng);
            same += usize::from(near == "胶原蛋白肽饮 焕颜版");
            let kept = near.chars().filter(|c| "胶原蛋白肽饮 焕颜版".contains(*c)).count();
            assert!(kept >= 7, "{near} is far");
            let alias = maker.alias("胶原蛋白肽饮", &mut rng);
            assert!(alias.chars().count() >= 2 && alias.chars().all(|c| "胶原蛋白肽饮".contains(c)), "{alias}");
        }
        assert!(same < 10);
    }

    #[test]
    fn validation_characters_are_never_drawn_in_training() {
        let maker = maker();
        let unseen: HashSet<char> = maker.unseen.iter().copied().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let drawn: String = (0..5000).map(|_| maker.name(&mut rng)).collect();
        assert!(!drawn.chars().any(|c| unseen.contains(&c)));
        let fresh = maker.of_unseen_characters();
        assert!((0..100).filter(|_| fresh.name(&mut rng).chars().any(|c| unseen.contains(&c))).count() > 70);
    }
}
