//! Personal identifiers taken out of texts before anything is written: phone numbers, e-mail addresses, identity cards,
//! bank cards and WeChat ids, in Chinese and English texts.
//!
//! A number alone says little, so each kind is recognised by what sets it apart: an identity card and a bank card by
//! their check digits, a mobile number by its first digits, a WeChat id by the words before it. Amounts and product codes
//! have none of these, or stand next to a unit or a letter.

use std::sync::LazyLock;

use recast_domain::{Conversation, Rewrite};
use regex::{Captures, Regex};

/// What stands where an identifier was.
const PHONE: &str = "[phone]";
const EMAIL: &str = "[email]";
const ID_CARD: &str = "[id-card]";
const BANK_CARD: &str = "[bank-card]";
const WECHAT: &str = "[wechat]";

/// A kind of identifier: how it looks, and what else must hold of the capture `id` in its text.
struct Rule {
    pattern: Option<Regex>,
    holds: fn(&str) -> bool,
    mark: &'static str,
    /// Whether it may stand right beside letters, digits or a unit of money.
    anywhere: bool,
}

/// In this order: a WeChat id may look like a phone number, a card holds what looks like one.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |pattern: &str, holds, mark, anywhere| Rule { pattern: Regex::new(pattern).ok(), holds, mark, anywhere };
    vec![
        rule(r"(?P<id>[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,})", |_| true, EMAIL, true),
        rule(
            r"(?i)(?:微信|威信|薇信|v信|we\s?chat|weixin|\bvx|\bwx)(?:号码|号|账号|\s?id)?\s*(?:就?是|为|叫|is|加)?\s*[:：,，]?\s*(?P<id>[a-z][a-z0-9_\-]{5,19}|1[3-9][0-9]{9})",
            |id| !WORDS.contains(&id.to_lowercase().as_str()),
            WECHAT,
            true,
        ),
        rule(r"(?i)(?P<id>wxid_[a-z0-9]{6,})", |_| true, WECHAT, false),
        rule(r"(?P<id>[1-9][0-9]{5}(?:18|19|20)[0-9]{9}[0-9Xx])", is_id_card, ID_CARD, false),
        rule(r"(?P<id>[1-9][0-9]{5}[\s\-](?:18|19|20)[0-9]{6}[\s\-][0-9]{3}[0-9Xx])", is_id_card, ID_CARD, false),
        rule(r"(?P<id>[2-6][0-9]{3}(?:[ \-]?[0-9]{4}){2,3}(?:[ \-]?[0-9]{1,4})?)", is_bank_card, BANK_CARD, false),
        rule(
            r"(?i)(?:卡号|银行卡|储蓄卡|信用卡|card(?:\s+(?:number|no\.?))?)\s*(?:是|为|is)?\s*[:：]?\s*(?P<id>[0-9](?:[ \-]?[0-9]){11,18})",
            |_| true,
            BANK_CARD,
            true,
        ),
        rule(r"(?P<id>(?:\+?86[ \-]?)?1[3-9][0-9][ \-]?[0-9]{4}[ \-]?[0-9]{4})", |_| true, PHONE, false),
        rule(
            r"(?P<id>\+[1-9][0-9]{0,2}[ \-]?(?:\(?[0-9]{1,4}\)?[ \-]?){2,5}[0-9]{2,4})",
            is_international,
            PHONE,
            false,
        ),
        rule(r"(?P<id>04[0-9]{2}[ \-]?[0-9]{3}[ \-]?[0-9]{3})", |_| true, PHONE, false),
        rule(r"(?P<id>\(?0[1-9][0-9]{1,2}\)?[ \-][0-9]{4}[ \-]?[0-9]{3,4})", |_| true, PHONE, false),
        rule(
            r"(?i)(?:电话|手机号码|手机号|手机|座机|联系方式|热线|phone|mobile|\btel|call me (?:at|on)|ring me on)(?:号码|号)?\s*(?:number)?\s*(?:就?是|为|is|at|on)?\s*[:：.]?\s*(?P<id>\+?\(?[0-9](?:[ \-()]{0,2}[0-9]){6,13})",
            |_| true,
            PHONE,
            true,
        ),
    ]
});

/// Words that follow "WeChat" without being an id.
const WORDS: [&str; 14] = [
    "account", "accounts", "payment", "payments", "public", "groups", "channel", "official", "support", "service",
    "number", "message", "messages", "please",
];

/// The text without identifiers; `None` where it has none.
#[must_use]
pub fn redact(text: &str) -> Option<String> {
    // full-width digits and letters are looked at as what they mean; one character stays one character
    let mut plain: String = text.chars().map(half_width).collect();
    let mut original: Vec<char> = text.chars().collect();
    let mut changed = false;
    for rule in RULES.iter() {
        let Some(pattern) = &rule.pattern else { continue };
        while let Some((start, end)) = pattern.captures_iter(&plain).find_map(|found| place(&found, &plain, rule)) {
            let (from, to) = (plain[..start].chars().count(), plain[..end].chars().count());
            plain.replace_range(start..end, rule.mark);
            original.splice(from..to, rule.mark.chars());
            changed = true;
        }
    }
    changed.then(|| original.into_iter().collect())
}

/// Bytes of the identifier, where it is one.
fn place(found: &Captures<'_>, text: &str, rule: &Rule) -> Option<(usize, usize)> {
    let id = found.name("id")?;
    let (before, after) = (text[..id.start()].chars().next_back(), text[id.end()..].chars().next());
    let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let money = matches!(before, Some('¥' | '￥' | '$' | '.')) || matches!(after, Some('元' | '块' | '万' | '%' | '.'));
    let decimal = after == Some('.') && text[id.end() + 1..].starts_with(|c: char| c.is_ascii_digit());
    let money = if after == Some('.') { decimal || before == Some('.') } else { money };
    let free = rule.anywhere || !(word(before) || word(after) || money || matches!(before, Some('-' | '#')));
    (free && (rule.holds)(id.as_str())).then_some((id.start(), id.end()))
}

fn half_width(c: char) -> char {
    match c {
        '０'..='９' | 'Ａ'..='Ｚ' | 'ａ'..='ｚ' | '＠' | '＋' | '－' | '＿' | '．' => {
            char::from_u32(c as u32 - 0xFEE0).unwrap_or(c)
        }
        _ => c,
    }
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// GB 11643: a date, and a check digit over the first 17.
fn is_id_card(text: &str) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let signs: Vec<char> = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    if signs.len() != 18 {
        return false;
    }
    let number = digits(&signs[..17].iter().collect::<String>());
    let (month, day) = (number[10] * 10 + number[11], number[12] * 10 + number[13]);
    let sum: u32 = number.iter().zip(WEIGHTS).map(|(digit, weight)| digit * weight).sum();
    let expected = b"10X98765432"[(sum % 11) as usize] as char;
    (1..=12).contains(&month) && (1..=31).contains(&day) && signs[17].to_ascii_uppercase() == expected
}

/// 15 to 19 digits with a Luhn check digit; shorter ones are more often bar codes.
fn is_bank_card(text: &str) -> bool {
    let number = digits(text);
    let doubled = |(place, digit): (usize, &u32)| match place % 2 {
        0 => *digit,
        _ if digit * 2 > 9 => digit * 2 - 9,
        _ => digit * 2,
    };
    (15..=19).contains(&number.len()) && number.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

fn is_international(text: &str) -> bool {
    (8..=15).contains(&digits(text).len())
}

/// A conversation without identifiers, and whether it had any.
#[must_use]
pub fn redact_conversation(conversation: &Conversation) -> (Conversation, bool) {
    let mut kept = conversation.clone();
    let mut changed = false;
    let mut clean = |text: &mut String| {
        if let Some(without) = redact(text) {
            *text = without;
            changed = true;
        }
    };
    clean(&mut kept.query);
    clean(&mut kept.user_profile);
    clean(&mut kept.history_summary);
    clean(&mut kept.thought);
    kept.history.iter_mut().for_each(|turn| clean(&mut turn.content));
    (kept, changed)
}

/// Takes identifiers out of a rewrite. Its tokens would spell them, so they go too; without tokens a rewrite cannot be
/// learned from on-policy. The tokens also go where only the prompt had identifiers: they were drawn for another prompt
/// than the one that is kept.
pub fn redact_rewrite(rewrite: &mut Rewrite, prompt_changed: bool) {
    let without = redact(&rewrite.text);
    if prompt_changed || without.is_some() {
        rewrite.token_ids.clear();
        rewrite.log_probs.clear();
        rewrite.prompt_tokens = 0;
    }
    if let Some(text) = without {
        rewrite.text = text;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn number(rng: &mut ChaCha8Rng, length: usize) -> String {
        (0..length).map(|_| char::from(b'0' + rng.random_range(0..10))).collect()
    }

    fn mobile(rng: &mut ChaCha8Rng) -> String {
        let (head, a, b) = (rng.random_range(3..10), number(rng, 4), number(rng, 4));
        let third = rng.random_range(0..10);
        match rng.random_range(0..5) {
            0 => format!("1{head}{third} {a} {b}"),
            1 => format!("+86 1{head}{third}{a}{b}"),
            2 => format!("1{head}{third}-{a}-{b}"),
            3 => format!("04{}{third} {} {}", head, number(rng, 3), number(rng, 3)),
            _ => format!("1{head}{third}{a}{b}"),
        }
    }

    fn id_card(rng: &mut ChaCha8Rng) -> String {
        loop {
            let (year, month, day) = (rng.random_range(1950..2010), rng.random_range(1..13), rng.random_range(1..29));
            let body =
                format!("{}{}{year}{month:02}{day:02}{}", rng.random_range(11..66), number(rng, 4), number(rng, 3));
            for last in "0123456789X".chars() {
                let whole = format!("{body}{last}");
                if is_id_card(&whole) {
                    return whole;
                }
            }
        }
    }

    fn bank_card(rng: &mut ChaCha8Rng) -> String {
        loop {
            let length = [16, 19][rng.random_range(0..2)];
            let whole = format!("62{}", number(rng, length - 2));
            if is_bank_card(&whole) {
                let spaced: Vec<String> =
                    whole.as_bytes().chunks(4).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
                return if rng.random_bool(0.3) { spaced.join(" ") } else { whole };
            }
        }
    }

    fn wechat(rng: &mut ChaCha8Rng) -> String {
        let name: String = (0..rng.random_range(5..12)).map(|_| char::from(b'a' + rng.random_range(0..26))).collect();
        format!("{name}{}", number(rng, 3))
    }

    fn email(rng: &mut ChaCha8Rng) -> String {
        let host = ["qq.com", "163.com", "example.com.au", "mail.super-fund.org"][rng.random_range(0..4)];
        format!("{}.{}@{host}", wechat(rng), number(rng, 2))
    }

    /// A sentence with an identifier, and the identifier.
    fn sentence(rng: &mut ChaCha8Rng) -> (String, String) {
        let pick = |rng: &mut ChaCha8Rng, list: &[&str]| list[rng.random_range(0..list.len())].to_owned();
        let (id, frame) = match rng.random_range(0..5) {
            0 => (
                mobile(rng),
                pick(rng, &["我的手机是{}，方便联系我吗", "call me on {} please", "打{}找我", "电话:{}。谢谢"]),
            ),
            1 => (id_card(rng), pick(rng, &["身份证{}能报名吗", "my id card is {}", "证件号：{}，姓名王芳"])),
            2 => (bank_card(rng), pick(rng, &["退到{}这张卡", "卡号 {} 建设银行", "refund to card {} thanks"])),
            3 => (wechat(rng), pick(rng, &["加我微信{}", "微信号：{}，备注课程", "my WeChat id is {}", "vx {} 聊"])),
            _ => (email(rng), pick(rng, &["发到{}吧", "email me at {} about my super", "邮箱是{}，谢谢"])),
        };
        (frame.replace("{}", &id), id)
    }

    #[test]
    fn a_thousand_identifiers_are_found() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut missed = Vec::new();
        for _ in 0..1000 {
            let (text, id) = sentence(&mut rng);
            let clean = redact(&text).unwrap_or_else(|| text.clone());
            if clean.contains(&id) || clean.chars().filter(char::is_ascii_digit).count() > 0 {
                missed.push((text, clean));
            }
        }
        assert!(missed.len() <= 10, "{missed:?}");
    }

    #[test]
    fn full_width_digits_are_digits() {
        assert_eq!(redact("手机１３８００１３８０００谢谢").unwrap(), "手机[phone]谢谢");
        assert_eq!(redact("微信：ｘｉａｏ＿ｗａｎｇ８８").unwrap(), "微信：[wechat]");
    }

    #[test]
    fn codes_amounts_years_and_questions_are_left_alone() {
        let texts = [
            "SKU-20240315001 还有货吗",
            "产品编号 FD13800138000A 多少钱",
            "一共 13800.50 元",
            "¥13912345678",
            "15800000000元的项目",
            "concessional contributions cap 2024-25 is $30,000",
            "2023-24 财年和 2024-25 财年",
            "订单 202411210001 到哪了",
            "每日 3 次，每次 2 粒，一盒 60 粒",
            "ISBN 978-7-302-51276-9",
            "条码 6901234567892",
            "微信支付可以吗",
            "WeChat payment 可以用吗",
            "TBC 上限 1,900,000",
            "ABN 51 824 753 556",
            "第 138 期 0013 班",
        ];
        for text in texts {
            assert_eq!(redact(text), None, "{text}");
        }
    }

    #[test]
    fn a_redacted_rewrite_has_no_tokens() {
        let mut rewrite =
            Rewrite::plain("联系 13800138000", recast_domain::RewriteSource::Local, recast_domain::PolicyId::given());
        (rewrite.token_ids, rewrite.log_probs) = (vec![1, 2], vec![-0.1, -0.2]);
        let mut other = rewrite.clone();
        redact_rewrite(&mut rewrite, false);
        assert_eq!((rewrite.text.as_str(), rewrite.token_ids.len(), rewrite.log_probs.len()), ("联系 [phone]", 0, 0));
        other.text = "价格".to_owned();
        redact_rewrite(&mut other, true);
        assert_eq!((other.text.as_str(), other.token_ids.len()), ("价格", 0));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_a_second_pass_finds_nothing(text in "\\PC{0,60}") {
            if let Some(clean) = redact(&text) {
                prop_assert_eq!(redact(&clean), None);
            }
        }

        #[test]
        fn the_rest_of_a_text_stays(before in "[一-龥]{0,8}", after in "[一-龥]{0,8}") {
            let text = format!("{before} a.b@c.de {after}");
            prop_assert_eq!(redact(&text).unwrap(), format!("{before} [email] {after}"));
        }
    }
}
