//! The tables on a server, and who uses them: the same as in a file, with the types that PostgreSQL has for them.

use recast_config::Durability;

use crate::db::{CONNECT_TIMEOUT, Connection, Place, Result, Server, ServerUrl, Session, dialect};
use crate::error::EpisodeError;
use crate::owner;
use crate::schema::SCHEMA_VERSION;

/// The steps that made the tables, with the version that each leads to. The versions are those of
/// [`crate::migrations::MIGRATIONS`]; no store on a server is older than 3. A released step never changes.
pub(crate) const STEPS: [(u32, &str); 2] = [(3, TABLES), (4, LABELS_AND_ERASURES)];
const _: () = assert!(STEPS[STEPS.len() - 1].0 == SCHEMA_VERSION);

/// `seq` is the number of a row, as SQLite's `rowid` is. Texts are compared by their bytes, as SQLite does. Keys hold no
/// texts of any length: an entry of an index has 2704 bytes at most. `owner` is the gateway that a run waits in.
const TABLES: &str = r#"
    CREATE TABLE episodes (
        tenant          TEXT    COLLATE "C" NOT NULL,
        id              BYTEA   NOT NULL,
        created_ms      BIGINT  NOT NULL,
        record_version  BIGINT  NOT NULL,
        policy          TEXT    COLLATE "C" NOT NULL,
        degraded        BIGINT  NOT NULL,
        user_id         TEXT    COLLATE "C",
        conversation_id TEXT    COLLATE "C",
        body            TEXT    COLLATE "C" NOT NULL,
        experiment      TEXT    COLLATE "C",
        experiment_version BIGINT,
        arm             TEXT    COLLATE "C",
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, id)
    );
    CREATE INDEX episodes_by_time ON episodes (created_ms);
    CREATE INDEX episodes_by_policy ON episodes (tenant, policy, id);
    CREATE INDEX episodes_degraded ON episodes (tenant, id) WHERE degraded = 1;
    CREATE INDEX episodes_by_experiment
        ON episodes (tenant, experiment, id, experiment_version, arm, degraded) WHERE experiment IS NOT NULL;

    CREATE TABLE shadow_runs (
        tenant          TEXT    COLLATE "C" NOT NULL,
        episode         BYTEA   NOT NULL,
        experiment      TEXT    COLLATE "C" NOT NULL,
        version         BIGINT  NOT NULL,
        kind            TEXT    COLLATE "C" NOT NULL,
        arm             TEXT    COLLATE "C" NOT NULL,
        sampled_ms      BIGINT  NOT NULL,
        state           TEXT    COLLATE "C" NOT NULL
            CHECK (state IN ('pending', 'completed', 'failed', 'timed_out', 'dropped')),
        reason          TEXT    COLLATE "C" NOT NULL,
        record_version  BIGINT  NOT NULL,
        answer          TEXT    COLLATE "C",
        owner           BIGINT  DEFAULT nullif(current_setting('recast.owner', true), '')::bigint,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, episode, experiment, version, kind, arm),
        CHECK ((state = 'completed') = (answer IS NOT NULL))
    );
    CREATE INDEX shadow_by_episode ON shadow_runs (tenant, experiment, episode, version, kind, arm);
    CREATE INDEX shadow_by_outcome ON shadow_runs (tenant, experiment, version, arm, kind, state);
    CREATE INDEX shadow_pending ON shadow_runs (owner) WHERE state = 'pending';

    CREATE TABLE experiments (
        id              TEXT    COLLATE "C" NOT NULL,
        version         BIGINT  NOT NULL,
        definition      TEXT    COLLATE "C" NOT NULL,
        created_ms      BIGINT  NOT NULL,
        author          TEXT    COLLATE "C" NOT NULL,
        note            TEXT    COLLATE "C" NOT NULL,
        PRIMARY KEY (id, version)
    );

    CREATE TABLE feedback (
        tenant          TEXT    COLLATE "C" NOT NULL,
        id              BYTEA   NOT NULL,
        episode         BYTEA   NOT NULL,
        created_ms      BIGINT  NOT NULL,
        deferred        BIGINT  NOT NULL,
        signal          TEXT    COLLATE "C" NOT NULL,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, id)
    );
    CREATE INDEX feedback_by_episode ON feedback (tenant, episode, created_ms);
    CREATE INDEX feedback_deferred ON feedback (created_ms) WHERE deferred = 1;

    CREATE TABLE verdicts (
        tenant          TEXT    COLLATE "C" NOT NULL,
        episode         BYTEA   NOT NULL,
        side            TEXT    COLLATE "C" NOT NULL,
        judge           TEXT    COLLATE "C" NOT NULL,
        prompt_version  TEXT    COLLATE "C" NOT NULL,
        schema_version  BIGINT  NOT NULL,
        key             BYTEA   NOT NULL,
        state           TEXT    COLLATE "C" NOT NULL CHECK (state IN ('scored', 'missing')),
        scores          TEXT    COLLATE "C",
        reason          TEXT    COLLATE "C" NOT NULL,
        raw             TEXT    COLLATE "C" NOT NULL,
        created_ms      BIGINT  NOT NULL,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, key, episode, side),
        CHECK ((state = 'scored') = (scores IS NOT NULL))
    );
    CREATE INDEX verdicts_by_episode ON verdicts (tenant, episode, side);

    CREATE TABLE rewards (
        tenant          TEXT    COLLATE "C" NOT NULL,
        episode         BYTEA   NOT NULL,
        side            TEXT    COLLATE "C" NOT NULL,
        reward_version  BIGINT  NOT NULL,
        weights_hash    TEXT    COLLATE "C" NOT NULL,
        parts           TEXT    COLLATE "C" NOT NULL,
        created_ms      BIGINT  NOT NULL,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, episode, side, weights_hash)
    );

    CREATE FUNCTION episode_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM shadow_runs WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM feedback WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM verdicts WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM rewards WHERE tenant = old.tenant AND episode = old.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER episode_deleted AFTER DELETE ON episodes FOR EACH ROW EXECUTE FUNCTION episode_deleted();

    CREATE TABLE judge_replies (
        tenant          TEXT    COLLATE "C" NOT NULL,
        key             BYTEA   NOT NULL,
        judge           TEXT    COLLATE "C" NOT NULL,
        reply           TEXT    COLLATE "C" NOT NULL,
        created_ms      BIGINT  NOT NULL,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, key)
    );
    CREATE INDEX judge_replies_by_time ON judge_replies (created_ms);

    CREATE TABLE judge_costs (
        tenant          TEXT    COLLATE "C" NOT NULL,
        day             BIGINT  NOT NULL,
        cost            DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (tenant, day)
    );

    CREATE TABLE gateways (
        owner           BIGINT  PRIMARY KEY,
        seen            TIMESTAMPTZ NOT NULL
    );
"#;

/// See [`crate::migrations`].
const LABELS_AND_ERASURES: &str = r#"
    CREATE TABLE labels (
        tenant          TEXT    COLLATE "C" NOT NULL,
        episode         BYTEA   NOT NULL,
        author          TEXT    COLLATE "C" NOT NULL,
        kind            TEXT    COLLATE "C" NOT NULL CHECK (kind IN ('gold_rewrite', 'relevant', 'score', 'label')),
        value           TEXT    COLLATE "C" NOT NULL,
        created_ms      BIGINT  NOT NULL,
        seq             BIGINT  GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (tenant, episode, author, kind)
    );

    CREATE TABLE erasures (
        tenant          TEXT    COLLATE "C" NOT NULL,
        episode         BYTEA   NOT NULL,
        erased_ms       BIGINT  NOT NULL,
        PRIMARY KEY (tenant, episode)
    );
    CREATE INDEX erasures_by_time ON erasures (tenant, erased_ms);

    CREATE OR REPLACE FUNCTION episode_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM shadow_runs WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM feedback WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM verdicts WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM rewards WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM labels WHERE tenant = old.tenant AND episode = old.id;
        RETURN NULL;
    END $$;
"#;

/// Opens (or makes) the store for one of its writers, and brings it to the current version. `owner` is the writer's.
///
/// # Errors
/// When the server cannot be reached or refuses, or the store is of a newer version.
pub(crate) fn open_writer(
    url: &ServerUrl,
    durability: Durability,
    owner: i64,
) -> std::result::Result<Connection, EpisodeError> {
    let place = Place::Server(url.clone());
    let named = |error| place.error(error);
    let connection = Server::connect(url, Session::Write(durability), CONNECT_TIMEOUT).map_err(named)?;
    let connection = Connection::Postgres(connection);
    // two gateways that start at once: the second one finds the work done
    connection.batch(&format!("SELECT pg_advisory_lock{}", dialect::MIGRATING)).map_err(named)?;
    let found = make(&connection).map_err(named)?;
    if found > SCHEMA_VERSION {
        return Err(newer(&place, found));
    }
    connection.batch(&format!("SELECT pg_advisory_unlock{}", dialect::MIGRATING)).map_err(named)?;
    owner::hold(&connection, owner).map_err(named)?;
    Ok(connection)
}

/// Takes every step that is missing, each in its own transaction. Returns the version found.
fn make(connection: &Connection) -> Result<u32> {
    connection.batch(
        "SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)",
    )?;
    let found = version(connection)?.unwrap_or(0);
    for (version, step) in STEPS.iter().filter(|(version, _)| *version > found) {
        let number = format!("DELETE FROM schema_version; INSERT INTO schema_version VALUES ({version})");
        connection.batch(&["BEGIN; ", step, "; ", &number, "; COMMIT"].concat())?;
    }
    Ok(found)
}

/// The version of the store; `None` where it has none yet.
///
/// # Errors
/// When there is no store, or the server cannot be reached.
pub(crate) fn version(connection: &Connection) -> Result<Option<u32>> {
    connection.first("SELECT version FROM schema_version", &[], |row| row.get(0))
}

/// Opens an existing store for reading.
///
/// # Errors
/// When there is none, it is not of this version, or the server cannot be reached.
pub(crate) fn open_reader(url: &ServerUrl) -> std::result::Result<Connection, EpisodeError> {
    let place = Place::Server(url.clone());
    let connection = Server::connect(url, Session::Read, CONNECT_TIMEOUT).map_err(|error| place.error(error))?;
    let connection = Connection::Postgres(connection);
    match version(&connection).map_err(|error| place.error(error))?.unwrap_or(0) {
        SCHEMA_VERSION => Ok(connection),
        found if found > SCHEMA_VERSION => Err(newer(&place, found)),
        found => Err(EpisodeError::Server {
            place: place.to_string(),
            message: format!("schema version {found}, this recast knows {SCHEMA_VERSION}"),
            fix: "start the gateway once, it brings the store up to date",
        }),
    }
}

fn newer(place: &Place, found: u32) -> EpisodeError {
    EpisodeError::Server {
        place: place.to_string(),
        message: format!("schema version {found}, this recast knows {SCHEMA_VERSION}"),
        fix: "update recast",
    }
}
