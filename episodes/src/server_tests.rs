//! What only a server has: several writers at once, connections that break, and a door with a lock.

use std::time::{Duration, Instant};

use recast_config::Durability;
use recast_domain::TenantId;

use crate::db::{Connection, Place, ServerUrl};
use crate::test_site::{Site, address};
use crate::testing::{completed, dropped, ended, episode, sampled, settings};
use crate::{EpisodeError, EpisodeReader, EpisodeStore, ExperimentChange, NotStored, doctor};

fn tenant() -> TenantId {
    "a".parse().unwrap()
}

/// Ends the connections of this site's writers and readers, as a restart of the server does.
fn hang_up(site: &Site) {
    site.outside(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        site.name()
    ));
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_dead_gateway_are_ended_and_those_of_a_living_one_go_on() {
    let Some(site) = Site::server() else { return };
    let (dying, living) = (site.store(), site.store());
    let (of_dying, lost) = sampled("a", 1);
    dying.append_sampled(of_dying, lost.clone()).await.unwrap();
    let (of_living, kept) = sampled("a", 2);
    living.append_sampled(of_living, kept.clone()).await.unwrap();
    // it dies without a word: its connection ends and it is not seen again
    let (sender, dead) = std::sync::mpsc::channel();
    dying.with_writer(move |connection| {
        let owner = connection.number("SELECT current_setting('recast.owner')::bigint", &[]).unwrap();
        sender.send(owner).unwrap();
        // the writer stays here for the rest of the test
        loop {
            std::thread::park();
        }
    });
    let owner = dead.recv().unwrap();
    let third = site.store();
    let account = |store: &EpisodeStore| store.reader().shadow_accounting(&tenant(), None).unwrap().remove(0);
    assert_eq!(account(&third).pending, 2, "both live");
    site.command(&format!("UPDATE gateways SET seen = now() - interval '1 hour' WHERE owner = {owner}"));
    assert_eq!(account(&site.store()).pending, 2, "not seen for long, but connected");
    site.command(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
            AND classid::bigint << 32 | objid::bigint = {owner}"
    ));
    until("the end of the run that was left", || {
        // whoever starts, or has lived on, ends it
        drop(site.store());
        account(&third).pending == 1
    })
    .await;
    let now = account(&third);
    assert_eq!((now.dropped.get("restart"), now.sampled, now.adds_up()), (Some(&1), 2, true));
    // the living one ends its own, the dead one's outcome stands
    assert_eq!(living.end_shadow(&ended(&kept, completed())).await.unwrap(), crate::ShadowEnd::Stored);
    assert_eq!(living.end_shadow(&ended(&lost, dropped("late"))).await.unwrap(), crate::ShadowEnd::AlreadyEnded);
    assert!(account(&third).adds_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_on_one_store_store_everything_once() {
    let Some(site) = Site::server() else { return };
    let stores = [site.store(), site.store()];
    let shared: Vec<_> = (0..40).map(|ms| episode("a", ms)).collect();
    let with_own = |from: i64| {
        let own = (from..from + 40).map(|ms| episode("a", ms));
        own.chain(shared.iter().cloned()).collect::<Vec<_>>()
    };
    let (one, two) = (with_own(100), with_own(200));
    let append = async |store: &EpisodeStore, episodes: Vec<recast_domain::Episode>| {
        for episode in episodes {
            store.append(episode).await.unwrap();
            store.add_judge_cost(&tenant(), 7, 1.0).await.unwrap();
        }
    };
    tokio::join!(append(&stores[0], one), append(&stores[1], two));
    let reader = site.reader();
    assert_eq!(reader.list(&crate::EpisodeFilter::newest(tenant(), 1000)).unwrap().len(), 120);
    assert_eq!(reader.judge_cost(&tenant(), 7).unwrap(), 160.0, "no addition is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_that_change_one_experiment_one_is_told_to_read_again() {
    let Some(site) = Site::server() else { return };
    let (one, two) = (site.store(), site.store());
    let change = |expected_version| ExperimentChange {
        id: "x".to_owned(),
        definition: "{}".to_owned(),
        expected_version,
        created_ms: 1,
        author: "k".to_owned(),
        note: String::new(),
    };
    for version in 0..20 {
        let (first, second) =
            tokio::join!(one.save_experiment(change(Some(version))), two.save_experiment(change(Some(version))));
        let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(won.unwrap(), version + 1);
        assert!(matches!(lost, Err(EpisodeError::VersionConflict { .. })), "{lost:?}");
    }
    let (first, second) = tokio::join!(one.save_experiment(change(None)), two.save_experiment(change(None)));
    let mut saved = [first.unwrap(), second.unwrap()];
    saved.sort_unstable();
    assert_eq!(saved, [21, 22], "who expects nothing gets the next one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_costs_nothing_that_was_acknowledged() {
    let Some(site) = Site::server() else { return };
    let store = site.store();
    let mut acknowledged = Vec::new();
    for ms in 0..60 {
        if ms % 20 == 10 {
            hang_up(&site);
        }
        let episode = episode("a", ms);
        let id = episode.id;
        if store.append(episode).await.is_ok() {
            acknowledged.push(id);
        }
    }
    assert!(acknowledged.len() > 50, "the writer calls again at once: {}", acknowledged.len());
    for id in acknowledged {
        assert!(store.get(&tenant(), id).await.is_ok(), "{id} was acknowledged");
    }
    assert_eq!(store.health().problem, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_at_once_and_come_back_to() {
    let Some(site) = Site::server() else { return };
    for durability in [Durability::Strict, Durability::Group] {
        let store = site.open(durability);
        store.append(episode("a", 1)).await.unwrap();
        // nobody may come in any more, and who is in is put out
        site.let_in(false);
        hang_up(&site);
        until("the trouble", || matches!(store.health().problem, Some(NotStored::Unreachable(_)))).await;
        let start = Instant::now();
        let refused = store.append(episode("a", 2)).await.unwrap_err();
        assert!(matches!(refused, EpisodeError::NotStored(NotStored::Unreachable(_))), "{refused}");
        assert!(start.elapsed() < Duration::from_millis(1500), "the reply does not wait: {:?}", start.elapsed());
        site.let_in(true);
        until("the return", || store.health().problem.is_none()).await;
        store.append(episode("a", 3)).await.unwrap();
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_with_its_fix_and_never_the_password() {
    let Some(site) = Site::server() else { return };
    let missing = EpisodeReader::open(site.place()).unwrap_err().to_string();
    assert!(missing.contains("start the gateway once"), "{missing}");
    assert!(!doctor(site.place(), &settings(Durability::Strict)).findings.is_empty());
    site.store().close().await;
    assert_eq!(doctor(site.place(), &settings(Durability::Strict)).findings, []);
    site.command("UPDATE schema_version SET version = 99");
    for error in [
        EpisodeStore::open(site.place(), &settings(Durability::Strict)).unwrap_err(),
        EpisodeReader::open(site.place()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("99") && error.to_string().ends_with("update recast"), "{error}");
    }
    let address = address().unwrap();
    let cases = [
        (address.replace("te%3Ast", "wr0ng"), "check the user and the password"),
        (address.replace("/tests", "/nowhere"), "episodes.url"),
        ("postgresql://u:wr0ng@127.0.0.1:1/d".to_owned(), "start PostgreSQL, or check host and port"),
    ];
    for (url, expected) in cases {
        let place = Place::Server(ServerUrl::parse(&url).unwrap());
        let error = EpisodeStore::open(&place, &settings(Durability::Strict)).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("wr0ng"), "{error}");
        assert!(!format!("{place:?} {place}").contains("wr0ng"));
    }
}

#[test]
fn an_address_that_makes_no_sense_or_asks_for_tls_is_refused_without_its_password() {
    for (url, expected) in [
        ("mysql://u:wr0ng@h/d", "no address"),
        ("postgresql://", "names no host"),
        ("postgresql://u:wr0ng@h/d?sslmode=require", "TLS"),
    ] {
        let error = ServerUrl::parse(url).unwrap_err().to_string();
        assert!(error.contains("episodes.url") && error.contains(expected) && !error.contains("wr0ng"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_text_of_the_server_cannot_hold_is_stored_all_the_same() {
    let Some(site) = Site::server() else { return };
    let store = site.store();
    let mut odd = episode("a", 1);
    odd.request.user_id = Some("a\0b".to_owned());
    store.append(odd.clone()).await.unwrap();
    assert_eq!(store.get(&odd.tenant, odd.id).await.unwrap(), odd, "the record keeps what the column cannot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refused_write_does_not_take_its_batch_with_it() {
    let Some(site) = Site::server() else { return };
    let connection = site.connection();
    let row = |tenant: &str| crate::write::Write::Episode(crate::record::encode(&episode(tenant, 1)).unwrap());
    connection.batch("ALTER TABLE episodes ADD CONSTRAINT no_b CHECK (tenant <> 'b')").unwrap();
    let applied = crate::write::commit(&connection, [row("a"), row("b"), row("a")].iter(), false).unwrap();
    assert!(applied[0].is_ok() && applied[1].is_err() && applied[2].is_ok(), "{applied:?}");
    assert_eq!(rows(&connection), 2);
}

fn rows(connection: &Connection) -> i64 {
    connection.number("SELECT count(*) FROM episodes", &[]).unwrap()
}
