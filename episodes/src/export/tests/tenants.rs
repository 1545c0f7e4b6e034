//! No filter, cursor or id leads to another tenant's rows.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// Two tenants who share ids, users, policies and experiments; and the first one as if it were alone.
fn stores() -> &'static (tempfile::TempDir, EpisodeReader, EpisodeReader) {
    static STORES: OnceLock<(tempfile::TempDir, EpisodeReader, EpisodeReader)> = OnceLock::new();
    STORES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (both, alone) = (dir.path().join("both"), dir.path().join("alone"));
        std::fs::create_dir_all(&both).unwrap();
        std::fs::create_dir_all(&alone).unwrap();
        let (writer, both) = store(&both, &["b", "a"], 40);
        // ids that only the other tenant has
        for number in 40..60 {
            commit(&writer, writes("b", number).iter(), false).unwrap();
        }
        let (_, alone) = store(&alone, &["a"], 40);
        (dir, both, alone)
    })
}

fn filters() -> impl Strategy<Value = ExportFilter> {
    let ms = || proptest::option::of((0_u64..70).prop_map(|number| nth("a", number).created_ms));
    let word =
        |words: &'static [&'static str]| proptest::option::of(proptest::sample::select(words).prop_map(str::to_owned));
    let policy = word(&["pass-through", "remote"]).prop_map(|policy| policy.map(|policy| policy.parse().unwrap()));
    let feedback = proptest::option::of(proptest::sample::select(vec![
        FeedbackWanted::Any,
        FeedbackWanted::None,
        FeedbackWanted::Up,
        FeedbackWanted::Down,
    ]));
    let parts = (
        ms(),
        ms(),
        word(&["x", "y", "' OR 1=1 --"]),
        word(&["control", "' OR tenant = 'b"]),
        policy,
        proptest::option::of(any::<bool>()),
        feedback,
        word(&["n", "n=2", "渠道", "x=' OR tenant = 'b"]).prop_map(|tag| tag.map(|tag| tag.parse().unwrap())),
    );
    parts.prop_map(|(from_ms, to_ms, experiment, arm, policy, degraded, feedback, tag)| ExportFilter {
        from_ms,
        to_ms,
        experiment,
        arm,
        policy,
        degraded,
        feedback,
        tag,
    })
}

fn cursors() -> impl Strategy<Value = Option<EpisodeId>> {
    let known = (0_u64..70).prop_map(id);
    let any = any::<u128>().prop_map(|number| EpisodeId(Uuid::from_u128(number)));
    proptest::option::of(prop_oneof![known, any])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Every reply is equal to the one of a store in which the other tenant never was.
    #[test]
    fn a_page_is_the_same_without_the_other_tenant(filter in filters(), after in cursors(), limit in 1_usize..60) {
        let (_, both, alone) = stores();
        let tenant = "a".parse().unwrap();
        let one = page(both, &tenant, &filter, after, limit).unwrap();
        prop_assert_eq!(one, page(alone, &tenant, &filter, after, limit).unwrap());
    }

    #[test]
    fn a_file_is_the_same_without_the_other_tenant(filter in filters(), format in proptest::sample::select(&FORMATS[..])) {
        let (_, both, alone) = stores();
        let dir = tempfile::tempdir().unwrap();
        let made = |reader: &EpisodeReader, name: &str| {
            let request = ExportRequest { filter: filter.clone(), ..request(dir.path().join(name), format, &["a"]) };
            export(reader, &request, go_on)
        };
        match (made(both, "both"), made(alone, "alone")) {
            (Ok(both), Ok(alone)) => {
                prop_assert_eq!(&both.files, &alone.files);
                prop_assert!(both.files.iter().all(|file| file.tenant.as_str() == "a"));
            }
            // a filter whose end is before its start
            (both, alone) => prop_assert!(both.is_err() && alone.is_err()),
        }
    }
}
