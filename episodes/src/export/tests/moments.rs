//! An export shows one moment of the store, whatever happens to it meanwhile.

use super::readers::{Cell, table};
use super::*;

on_both!(
    what_is_written_meanwhile_is_not_in_it,
    an_episode_that_cannot_be_read_is_counted_and_the_others_are_there,
    pages_together_are_the_whole,
    old_records_are_rows_too
);

fn what_is_written_meanwhile_is_not_in_it(site: &Site) {
    let (writer, reader) = store_at(site, &["a"], 600);
    for format in FORMATS {
        let before =
            export(&reader, &request(site.folder().join(format!("{format:?}-1")), format, &["a"]), go_on).unwrap();
        let request = request(site.folder().join(format!("{format:?}-2")), format, &["a"]);
        let mut changes = 0;
        let during = export(&reader, &request, |_| {
            changes += 1;
            // a new episode with an older id, feedback, a recomputed reward, and a deletion behind the cursor
            let one = nth("a", 599);
            let mut older = nth("a", 0);
            older.id = EpisodeId(Uuid::from_u128(1000 + changes));
            let all = [
                Write::Episode(encode(&older).unwrap()),
                Write::Feedback(Box::new(events::encode(&feedback(&one, 1)).unwrap())),
                Write::Rewards(vec![reward(&one, "w1", -0.75)]),
            ];
            assert!(commit(&writer, all.iter(), false).unwrap().iter().all(Result::is_ok));
            writer.execute("DELETE FROM episodes WHERE id = ?1", &[id(590).0.as_bytes().into()]).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(changes >= 2);
        assert_eq!(during.files, before.files, "{format:?}: bytes differ");
        // and the next one shows all of it: put the store back for the next format
        writer.execute("DELETE FROM episodes WHERE id < ?1", &[id(0).0.as_bytes().into()]).unwrap();
        writer.execute("DELETE FROM episodes WHERE id = ?1", &[id(599).0.as_bytes().into()]).unwrap();
        for number in [590, 599] {
            commit(&writer, writes("a", number).iter(), false).unwrap();
        }
    }
}

fn an_episode_that_cannot_be_read_is_counted_and_the_others_are_there(site: &Site) {
    let (writer, reader) = store_at(site, &["a"], 10);
    writer.execute("UPDATE episodes SET body = '{' WHERE id = ?1", &[id(4).0.as_bytes().into()]).unwrap();
    writer.execute("UPDATE episodes SET record_version = 99 WHERE id = ?1", &[id(5).0.as_bytes().into()]).unwrap();
    let request = request(site.folder().join("out"), Format::Parquet, &["a"]);
    let manifest = export(&reader, &request, go_on).unwrap();
    assert_eq!((manifest.rows, manifest.unreadable.count), (8, 2));
    assert!(manifest.unreadable.first[1].contains("newer"), "{:?}", manifest.unreadable);
    assert_eq!(table(&request.folder, &manifest).len(), 8);
    assert_eq!(page(&reader, &"a".parse().unwrap(), &ExportFilter::default(), None, 100).unwrap().rows, 8);
}

fn pages_together_are_the_whole(site: &Site) {
    let (_writer, reader) = store_at(site, &["a"], 50);
    let (tenant, filter) = ("a".parse().unwrap(), ExportFilter::default());
    let whole = page(&reader, &tenant, &filter, None, 1000).unwrap();
    assert_eq!((whole.rows, whole.next), (50, None));
    let (mut lines, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let some = page(&reader, &tenant, &filter, after, 7).unwrap();
        assert!(some.rows <= 7);
        lines.extend_from_slice(&some.lines);
        pages += 1;
        after = some.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 8);
    assert!(lines == whole.lines, "pages repeat or leave out a row");
}

fn old_records_are_rows_too(site: &Site) {
    let (writer, reader) = store_at(site, &["a"], 1);
    let old = include_str!("../../../tests/golden/record_v1.json");
    writer.execute("UPDATE episodes SET body = ?1", &[old.into()]).unwrap();
    let request = request(site.folder().join("out"), Format::Jsonl, &["a"]);
    let manifest = export(&reader, &request, go_on).unwrap();
    let rows = table(&request.folder, &manifest);
    assert_eq!(rows[0]["rewrite"], Cell::Text("胶原蛋白肽 孕妇禁忌".to_owned()));
    assert_eq!(manifest.unreadable.count, 0);
}
