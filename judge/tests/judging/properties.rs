//! What holds for any text.
use proptest::prelude::*;
use recast_config::JudgeLanguage;
use recast_judge::{Entry, Scores, Verdict, list_prompt, rubric_prompt};
use serde_json::{Value, json};

use crate::support::{item, material};

proptest! {
    #[test]
    fn any_text_stays_in_its_field_and_comes_out_whole(query in any::<String>(), rewrite in "[\\PC\"\\\\\n\r<>|{}-]{0,60}") {
        let entries = [Entry { id: "bcdf".to_owned(), text: &rewrite }];
        let one = rubric_prompt(&item(&query), &rewrite, JudgeLanguage::Zh);
        let list = list_prompt(&item(&query), &entries, JudgeLanguage::En);
        prop_assert_eq!(&material(&one.user)["rewrite"], &json!(rewrite));
        prop_assert_eq!(&material(&list.user)["rewrites"][0]["text"], &json!(rewrite));
        for prompt in [one, list] {
            prop_assert_eq!(prompt.user.lines().count(), 4);
            let nonce = prompt.user.split('-').nth(1).unwrap();
            prop_assert_eq!(prompt.user.matches(nonce).count(), 2, "once at each end");
            prop_assert_eq!(&material(&prompt.user)["query"], &json!(query));
        }
    }

    #[test]
    fn any_answer_is_a_verdict_in_bounds_or_none(answer in any::<String>(), values in prop::array::uniform4(any::<f64>())) {
        prop_assert!(Verdict::parse(&answer).overall().is_none(), "no prose has four scores in it");
        let [a, b, c, d] = values.map(|value| json!(value));
        let answer = json!({"改写质量": a, "领域适配": b, "意图保持": c, "可检索性": d});
        match Verdict::parse(&answer.to_string()) {
            Verdict::Scored { scores, .. } => {
                prop_assert!(<[u8; 4]>::from(scores).iter().all(|score| (1..=5).contains(score)));
                prop_assert!(answer.as_object().unwrap().values().all(Value::is_number));
            }
            Verdict::Missing { .. } => prop_assert!(values.iter().any(|value| !value.is_finite() || value.fract() != 0.0)),
        }
    }

    #[test]
    fn whole_numbers_are_clamped_and_averaged(values in prop::array::uniform4(-20_i64..20)) {
        let [a, b, c, d] = values;
        let answer = json!({"改写质量": a, "领域适配": b, "意图保持": c, "可检索性": d}).to_string();
        let clamped = values.map(|value| u8::try_from(value.clamp(1, 5)).unwrap());
        prop_assert_eq!(Verdict::parse(&answer).overall(), Some(Scores::try_from(clamped).unwrap().overall()));
    }
}
